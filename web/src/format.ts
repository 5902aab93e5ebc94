// Numbers and times as people read them. Fixed widths where numbers change in place.

export const LOCALE = typeof navigator === "undefined" ? "en" : navigator.language;

const fixed = [0, 1, 2].map(
  (digits) =>
    new Intl.NumberFormat(LOCALE, { minimumFractionDigits: digits, maximumFractionDigits: digits }),
) as [Intl.NumberFormat, Intl.NumberFormat, Intl.NumberFormat];
const clock = new Intl.DateTimeFormat(LOCALE, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day_clock = new Intl.DateTimeFormat(LOCALE, {
  month: "short",
  day: "numeric",
  hour: "2-digit",
  minute: "2-digit",
  hourCycle: "h23",
});
const date = new Intl.DateTimeFormat(LOCALE, { year: "numeric", month: "short", day: "numeric" });
const relative = new Intl.RelativeTimeFormat(LOCALE, { numeric: "auto" });

export const NOTHING = "–";

export function count(value: number): string {
  return fixed[0].format(value);
}

export function decimal(value: number | null | undefined, digits: 0 | 1 | 2 = 1): string {
  return value == null ? NOTHING : fixed[digits].format(value);
}

export function percent(value: number | null | undefined, digits: 0 | 1 | 2 = 1): string {
  return value == null ? NOTHING : `${fixed[digits].format(value)} %`;
}

const BINARY = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"] as const;

export function bytes(value: number | null | undefined, whole_from = 99.95, exact?: Intl.NumberFormat): string {
  if (value == null) return NOTHING;
  let size = value;
  let unit = 0;
  while (Math.abs(size) >= 1000 && unit < BINARY.length - 1) {
    size /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || Math.abs(size) >= whole_from ? 0 : 1;
  return `${(exact ?? fixed[digits]).format(size)} ${BINARY[unit]}`;
}

export function rate(value: number | null | undefined): string {
  return value == null ? NOTHING : `${bytes(value)}/s`;
}

/** A rate for a narrow column: one decimal only below ten. */
export function short_rate(value: number | null | undefined): string {
  return value == null ? NOTHING : `${bytes(value, 9.95)}/s`;
}

export function duration(seconds: number | null | undefined): string {
  if (seconds == null) return NOTHING;
  const days = Math.floor(seconds / 86_400);
  const hours = Math.floor((seconds % 86_400) / 3_600);
  const minutes = Math.floor((seconds % 3_600) / 60);
  if (days >= 100) return `${fixed[0].format(days)} d`;
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  if (minutes > 0) return `${minutes} min`;
  return `${Math.max(0, Math.floor(seconds))} s`;
}

export function time_of_day(at_s: number): string {
  return clock.format(at_s * 1000);
}

export function moment(at_s: number): string {
  return day_clock.format(at_s * 1000);
}

export function calendar_day(at_s: number): string {
  return date.format(at_s * 1000);
}

export function ago(at_s: number, now_s: number): string {
  const seconds = Math.round(at_s - now_s);
  const size = Math.abs(seconds);
  if (size < 60) return relative.format(Math.round(seconds), "second");
  if (size < 3_600) return relative.format(Math.round(seconds / 60), "minute");
  if (size < 86_400) return relative.format(Math.round(seconds / 3_600), "hour");
  return relative.format(Math.round(seconds / 86_400), "day");
}

/** Unix seconds of an instant that the console gave as text or as a number. */
export function seconds(at: string | number | null | undefined): number | null {
  if (at == null) return null;
  if (typeof at === "number") return at;
  const parsed = Date.parse(at);
  return Number.isNaN(parsed) ? null : parsed / 1000;
}
