// The checkpoint that this browser saw last, for each log and user. It is no secret; it is what makes a log that was
// cut or rewritten since then visible here.

export interface Seen {
  note: string;
  vkey: string;
  at: string;
}

const PREFIX = "server-monitor.checkpoint.";

export function last_seen(user_id: string): Seen | null {
  try {
    const seen: unknown = JSON.parse(localStorage.getItem(PREFIX + user_id) ?? "null");
    return is_seen(seen) ? seen : null;
  } catch {
    return null;
  }
}

export function remember(user_id: string, seen: Seen): boolean {
  try {
    localStorage.setItem(PREFIX + user_id, JSON.stringify(seen));
    return true;
  } catch {
    return false;
  }
}

export function all(): readonly [name: string, value: string][] {
  try {
    return Object.entries(localStorage).filter(([name]) => name.startsWith(PREFIX));
  } catch {
    return [];
  }
}

export function restore(seen: readonly [name: string, value: string][]): void {
  try {
    for (const [name, value] of seen) localStorage.setItem(name, value);
  } catch {
    // A browser that stores nothing has nothing to lose either.
  }
}

function is_seen(value: unknown): value is Seen {
  return (
    typeof value === "object" &&
    value !== null &&
    ["note", "vkey", "at"].every((name) => typeof (value as Record<string, unknown>)[name] === "string")
  );
}
