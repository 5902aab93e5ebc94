// How much of what a group printed is here, and which of its tasks has more.

import type { Outputs, Printed } from "./calls";

/** More is not sent at once by anything but a download. */
export const HEAD_BYTES = 65_536;

/** One of the tasks that printed this, when asking for it brings more than came with the group. */
export function more_from(group: Outputs): string | null {
  const lacks = (["stdout", "stderr"] as const).some((stream) => {
    const sent_bytes = group[`${stream}_sent_bytes`];
    return sent_bytes < Math.min(group[`${stream}_bytes`], HEAD_BYTES);
  });
  return group.has_output && lacks ? (group.tasks[0]?.id ?? null) : null;
}

/** What is here of it; null while nothing is. */
export function printed(group: Outputs, fetched: ReadonlyMap<string, Printed>): Printed | null {
  const more = fetched.get(group.tasks[0]?.id ?? "");
  if (more) return more;
  const { stdout, stderr, stdout_sent_bytes, stderr_sent_bytes } = group;
  return stdout === null || stderr === null ? null : { stdout, stderr, stdout_sent_bytes, stderr_sent_bytes };
}

/** Whether there is more than what is here. */
export function is_cut(group: Outputs, here: Printed): boolean {
  return here.stdout_sent_bytes < group.stdout_bytes || here.stderr_sent_bytes < group.stderr_bytes;
}
