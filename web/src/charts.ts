// History first, live points merged by time. One time axis for all series of a server, so that every
// chart on the page shares its cursor and a sample costs one insertion.

import type { MetricRange } from "./types";

/** min, mean and max of one series, each as long as the timeline's `times`; null where there is no value. */
export interface Column {
  min: (number | null)[];
  mean: (number | null)[];
  max: (number | null)[];
}

/** A hole wider than this many steps is drawn as a hole, not as a line across it. */
const GAP_STEPS = 3;

export class Timeline {
  times: number[] = [];
  columns = new Map<string, Column>();
  /** Seconds between points. Live samples that fall into one step are combined. */
  step_s: number;
  #in_last_step = 0;

  constructor(step_s = 1) {
    this.step_s = step_s;
  }

  get last_at_s(): number | null {
    return this.times.at(-1) ?? null;
  }

  /** Add history. What is already there stays, except where history has a value for the same instant. */
  merge(ranges: readonly MetricRange[]): void {
    const before = this.last_at_s;
    const wanted = new Set(this.times);
    for (const range of ranges) for (const point of range.points) wanted.add(point[0]);
    if (wanted.size !== this.times.length) this.#widen([...wanted].sort((a, b) => a - b));
    const index_of = new Map(this.times.map((at, index) => [at, index]));
    for (const range of ranges) {
      const column = this.#column(range.metric);
      for (const [at, min, mean, max] of range.points) {
        const index = index_of.get(at) as number;
        column.min[index] = min;
        column.mean[index] = mean;
        column.max[index] = max;
      }
    }
    if (this.last_at_s !== before) this.#in_last_step = 1;
  }

  /** Add one live sample. A sample older than the newest point is put in its place. */
  push(at_s: number, values: Readonly<Record<string, number>>): void {
    const at = this.step_s > 1 ? Math.floor(at_s / this.step_s) * this.step_s : at_s;
    const last = this.last_at_s;
    if (last !== null && at < last) {
      this.merge(Object.entries(values).map(([metric, value]) => point_range(metric, at, value)));
      return;
    }
    if (last === at) this.#combine(values);
    else this.#append(at, values);
  }

  /** Forget what is older than `from_s`. */
  trim(from_s: number): void {
    let count = 0;
    while (count < this.times.length && (this.times[count] as number) < from_s) count += 1;
    if (count === 0) return;
    this.times.splice(0, count);
    for (const column of this.columns.values()) {
      column.min.splice(0, count);
      column.mean.splice(0, count);
      column.max.splice(0, count);
    }
  }

  /** The times, and for each series asked for its columns, with an empty point inside every hole. */
  view(series: readonly string[]): { times: number[]; columns: Column[] } {
    const holes = this.#holes();
    const columns = series.map((name) => this.columns.get(name) ?? empty(this.times.length));
    if (holes.length === 0) return { times: this.times, columns };
    return {
      times: with_holes(this.times, holes, (index) => (this.times[index] as number) + this.step_s),
      columns: columns.map((column) => ({
        min: with_holes(column.min, holes, () => null),
        mean: with_holes(column.mean, holes, () => null),
        max: with_holes(column.max, holes, () => null),
      })),
    };
  }

  #holes(): number[] {
    const holes: number[] = [];
    const widest = this.#usual_step_s() * GAP_STEPS;
    for (let index = 1; index < this.times.length; index += 1) {
      if ((this.times[index] as number) - (this.times[index - 1] as number) > widest) holes.push(index - 1);
    }
    return holes;
  }

  /** A host nobody looks at is sampled every 10 s: that is its rhythm, not a row of holes. */
  #usual_step_s(): number {
    return Math.max(this.step_s, this.step_s <= 10 ? 10 : 0);
  }

  #append(at: number, values: Readonly<Record<string, number>>): void {
    this.times.push(at);
    for (const column of this.columns.values()) {
      column.min.push(null);
      column.mean.push(null);
      column.max.push(null);
    }
    const last = this.times.length - 1;
    for (const [name, value] of Object.entries(values)) {
      const column = this.#column(name);
      column.min[last] = column.mean[last] = column.max[last] = value;
    }
    this.#in_last_step = 1;
  }

  #combine(values: Readonly<Record<string, number>>): void {
    const last = this.times.length - 1;
    const count = this.#in_last_step;
    for (const [name, value] of Object.entries(values)) {
      const column = this.#column(name);
      const mean = column.mean[last] ?? null;
      column.min[last] = Math.min(column.min[last] ?? value, value);
      column.max[last] = Math.max(column.max[last] ?? value, value);
      column.mean[last] = mean === null ? value : (mean * count + value) / (count + 1);
    }
    this.#in_last_step = count + 1;
  }

  #column(name: string): Column {
    let column = this.columns.get(name);
    if (!column) {
      column = empty(this.times.length);
      this.columns.set(name, column);
    }
    return column;
  }

  #widen(times: number[]): void {
    const index_of = new Map(times.map((at, index) => [at, index]));
    for (const column of this.columns.values()) {
      for (const part of ["min", "mean", "max"] as const) {
        const wider = new Array<number | null>(times.length).fill(null);
        column[part].forEach((value, index) => {
          wider[index_of.get(this.times[index] as number) as number] = value;
        });
        column[part] = wider;
      }
    }
    this.times = times;
  }
}

function point_range(metric: string, at: number, value: number): MetricRange {
  return { metric, unit: "", step_s: 0, points: [[at, value, value, value]] };
}

function empty(length: number): Column {
  const nothing = () => new Array<number | null>(length).fill(null);
  return { min: nothing(), mean: nothing(), max: nothing() };
}

function with_holes<V>(values: readonly V[], holes: readonly number[], fill: (index: number) => V): V[] {
  const out: V[] = [];
  let next = 0;
  values.forEach((value, index) => {
    out.push(value);
    if (holes[next] === index) {
      out.push(fill(index));
      next += 1;
    }
  });
  return out;
}

/** Each column raised by the ones below it, for a stacked chart; null where every column is null. */
export function stacked(columns: readonly (readonly (number | null)[])[]): (number | null)[][] {
  const length = columns[0]?.length ?? 0;
  const below = new Array<number>(length).fill(0);
  return columns.map((column) =>
    column.map((value, index) => {
      if (columns.every((other) => other[index] == null)) return null;
      below[index] = (below[index] as number) + (value ?? 0);
      return below[index] as number;
    }),
  );
}
