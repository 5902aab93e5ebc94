// What the charts of a server's page show: which series, in which unit and colour.

import { LOCALE, bytes, decimal, percent, rate } from "./format";
import { t } from "./messages";

export type Unit = "percent" | "bytes" | "rate" | "number" | "celsius";

export interface Line {
  series: string;
  label: string;
  /** A colour token, without its dashes. */
  colour: string;
}

export interface Spec {
  key: string;
  title: string;
  hint?: string;
  unit: Unit;
  lines: readonly Line[];
  stacked?: boolean;
  filled?: boolean;
  /** The series whose maximum is drawn as a thin line when points are aggregated. */
  peak?: string;
  /** The chart's height in values: at least this much, and exactly `top` where there is a natural end. */
  at_least?: number;
  top?: number;
}

const short = new Intl.NumberFormat(LOCALE, { maximumFractionDigits: 2 });

/** The values beside an axis: no more digits than they need. */
export const ON_AXIS: Record<Unit, (value: number) => string> = {
  percent: (value) => `${short.format(value)} %`,
  bytes: (value) => bytes(value, 0, short),
  rate: (value) => `${bytes(value, 0, short)}/s`,
  number: (value) => short.format(value),
  celsius: (value) => `${short.format(value)} °C`,
};

export const WRITTEN: Record<Unit, (value: number | null | undefined) => string> = {
  percent: (value) => percent(value),
  bytes,
  rate,
  number: (value) => decimal(value, 2),
  celsius: (value) => (value == null ? decimal(value) : `${decimal(value, 0)} °C`),
};

const legend = t.server.legend;
const COLOURS = ["series-1", "series-5", "series-3", "series-2", "series-6", "series-4"] as const;
const SENSORS_SHOWN = 6;

const CPU: Spec = {
  key: "cpu",
  title: t.server.charts.cpu,
  unit: "percent",
  stacked: true,
  top: 100,
  peak: "cpu_percent",
  lines: [
    { series: "cpu_system_percent", label: legend.system, colour: "series-2" },
    { series: "cpu_user_percent", label: legend.user, colour: "series-1" },
    { series: "cpu_iowait_percent", label: legend.iowait, colour: "series-3" },
    { series: "cpu_steal_percent", label: legend.steal, colour: "series-4" },
  ],
};

const LOAD: Spec = {
  key: "load",
  title: t.server.charts.load,
  unit: "number",
  at_least: 1,
  lines: [
    { series: "load1", label: legend.load1, colour: "series-1" },
    { series: "load5", label: legend.load5, colour: "series-5" },
    { series: "load15", label: legend.load15, colour: "series-2" },
  ],
};

const NETWORK: Spec = {
  key: "network",
  title: t.server.charts.network,
  unit: "rate",
  filled: true,
  at_least: 1024,
  lines: [
    { series: "net_rx_bytes_per_second", label: legend.received, colour: "series-5" },
    { series: "net_tx_bytes_per_second", label: legend.sent, colour: "series-2" },
  ],
};

const DISK_IO: Spec = {
  key: "disk_io",
  title: t.server.charts.disk_io,
  unit: "rate",
  filled: true,
  at_least: 4096,
  lines: [
    { series: "disk_read_bytes_per_second", label: legend.read, colour: "series-1" },
    { series: "disk_write_bytes_per_second", label: legend.written, colour: "series-3" },
  ],
};

const PRESSURE: Spec = {
  key: "pressure",
  title: t.server.charts.pressure,
  hint: t.server.pressure_hint,
  unit: "percent",
  at_least: 5,
  lines: [
    { series: "pressure_cpu_percent", label: legend.cpu, colour: "series-1" },
    { series: "pressure_memory_percent", label: legend.memory, colour: "series-2" },
    { series: "pressure_io_percent", label: legend.io, colour: "series-3" },
  ],
};

/** The history to ask for: every series of the charts, and one pattern for sensors. */
export const ASKED: readonly string[] = [
  "cpu_percent",
  ...[CPU, LOAD, NETWORK, DISK_IO, PRESSURE].flatMap((spec) => spec.lines.map((line) => line.series)),
  "memory_used_bytes",
  "memory_cached_bytes",
  "swap_used_bytes",
  "temperature_celsius:*",
];

export const FILESYSTEM_SERIES: readonly string[] = [
  "filesystem_percent:*",
  "filesystem_size_bytes:*",
  "filesystem_available_bytes:*",
  "filesystem_inodes_percent:*",
];

/** The charts of a server that has these series. */
export function specs(present: ReadonlySet<string>, memory_total: number | null, swaps: boolean): Spec[] {
  const has = (spec: Spec) => spec.lines.some((line) => present.has(line.series));
  const all = [CPU, memory(memory_total, swaps), LOAD, NETWORK, DISK_IO];
  return [...all, ...[PRESSURE].filter(has), ...temperatures(present)];
}

function memory(total: number | null, swaps: boolean): Spec {
  const used = { series: "memory_used_bytes", label: legend.used, colour: "series-1" };
  const swap = { series: "swap_used_bytes", label: legend.swap, colour: "series-2" };
  return {
    key: "memory",
    title: t.server.charts.memory,
    unit: "bytes",
    filled: true,
    top: total ?? undefined,
    at_least: 1024 ** 2,
    lines: swaps ? [used, swap] : [used],
  };
}

function temperatures(present: ReadonlySet<string>): Spec[] {
  const sensors = [...present].filter((name) => name.startsWith("temperature_celsius:")).sort();
  if (sensors.length === 0) return [];
  const lines = sensors.slice(0, SENSORS_SHOWN).map((series, index) => ({
    series,
    label: series.slice(series.indexOf(":") + 1),
    colour: COLOURS[index % COLOURS.length] as string,
  }));
  return [{ key: "temperature", title: t.server.charts.temperature, unit: "celsius", at_least: 60, lines }];
}
