// Times and ends as people read them.

import { t } from "../messages";

/** How a session ended, in a sentence. `code` is the console's cause; `told` its own sentence for it, if any. */
export function how_ended(code: string, exit_status: number | null, told: string | null = null): string {
  if (code === "exited" && exit_status) return t.terminal.ended_with(exit_status);
  return t.terminal.ends[code] ?? (told || t.terminal.ended_otherwise(code));
}

/** A time since a beginning, as a clock shows it: `1:02:03`, or `2:03` below an hour. */
export function clock(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3_600), Math.floor((whole % 3_600) / 60), whole % 60];
  const two = (value: number) => String(value).padStart(2, "0");
  return hours > 0 ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}
