// Something that somebody asked for: whether it is under way, and why it failed.

export class Attempt {
  busy = $state(false);
  failure = $state.raw<unknown>(null);

  /** Resolves to whether it has worked. */
  async make(act: () => Promise<void>): Promise<boolean> {
    this.busy = true;
    this.failure = null;
    try {
      await act();
      return true;
    } catch (refusal) {
      this.failure = refusal;
      return false;
    } finally {
      this.busy = false;
    }
  }
}
