// Which dialog is open. Any page, shortcut or palette entry may ask for one.

import type { Server } from "./types";

export type Asked =
  | { kind: "add" }
  | { kind: "edit"; server: Server }
  | { kind: "remove"; server: Server }
  | { kind: "import" }
  | { kind: "approve"; waiting_for: readonly string[] }
  | { kind: "trust"; server: Server }
  | { kind: "files"; server: Server }
  | { kind: "palette" }
  | { kind: "help" };

class Dialogs {
  asked = $state.raw<Asked | null>(null);

  open(asked: Asked): void {
    this.asked = asked;
  }

  close(): void {
    this.asked = null;
  }
}

export const dialogs = new Dialogs();
