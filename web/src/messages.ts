// The catalogue in use. A translation is another file that satisfies `Messages`.

import { en } from "./messages/en";

export type Messages = typeof en;

export const t: Messages = en;
