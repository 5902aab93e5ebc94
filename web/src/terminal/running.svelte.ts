// How many terminals this page holds, and the way to leave them all. Apart from the rest, so that a page without a
// terminal loads nothing of them.

class Running {
  live = $state(0);
  /** Somebody else may sit here next: every shell is left, and nothing of it stays on the page. */
  leave_all: () => void = () => undefined;
}

export const running = new Running();
