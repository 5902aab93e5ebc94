// Short confirmations in a corner. They say what happened and go away by themselves.

export interface Toast {
  id: number;
  text: string;
  bad: boolean;
}

const SHOWN_MS = 5_000;

class Toasts {
  all = $state.raw<Toast[]>([]);
  #next = 1;

  say(text: string): void {
    this.#show(text, false);
  }

  warn(text: string): void {
    this.#show(text, true);
  }

  drop(id: number): void {
    this.all = this.all.filter((toast) => toast.id !== id);
  }

  #show(text: string, bad: boolean): void {
    const id = this.#next;
    this.#next += 1;
    this.all = [...this.all.slice(-3), { id, text, bad }];
    setTimeout(() => this.drop(id), bad ? SHOWN_MS * 2 : SHOWN_MS);
  }
}

export const toasts = new Toasts();
