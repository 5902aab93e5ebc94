import { describe, expect, test } from "vitest";
import { Timeline, stacked } from "../src/charts";
import type { MetricRange, Point } from "../src/types";

function range(metric: string, points: Point[], step_s = 1): MetricRange {
  return { metric, unit: "%", step_s, points };
}

const flat = (at: number, value: number): Point => [at, value, value, value];

describe("a timeline", () => {
  test("puts history of several series on one time axis", () => {
    const timeline = new Timeline();
    timeline.merge([range("cpu", [flat(1, 10), flat(3, 30)]), range("load", [flat(2, 2), flat(3, 3)])]);
    const { times, columns } = timeline.view(["cpu", "load"]);
    expect(times).toEqual([1, 2, 3]);
    expect(columns[0]?.mean).toEqual([10, null, 30]);
    expect(columns[1]?.mean).toEqual([null, 2, 3]);
  });

  test("appends live samples after history", () => {
    const timeline = new Timeline();
    timeline.merge([range("cpu", [flat(1, 10)])]);
    timeline.push(2, { cpu: 20 });
    expect(timeline.view(["cpu"]).columns[0]?.mean).toEqual([10, 20]);
  });

  test("keeps live samples when history arrives after them, and lets history decide about the same instant", () => {
    const timeline = new Timeline();
    timeline.push(5, { cpu: 50 });
    timeline.push(6, { cpu: 60 });
    timeline.merge([range("cpu", [flat(3, 30), flat(5, 51)])]);
    const { times, columns } = timeline.view(["cpu"]);
    expect(times).toEqual([3, 5, 6]);
    expect(columns[0]?.mean).toEqual([30, 51, 60]);
  });

  test("puts a late sample in its place", () => {
    const timeline = new Timeline();
    timeline.push(1, { cpu: 1 });
    timeline.push(3, { cpu: 3 });
    timeline.push(2, { cpu: 2 });
    expect(timeline.view(["cpu"])).toMatchObject({ times: [1, 2, 3], columns: [{ mean: [1, 2, 3] }] });
  });

  test("combines live samples that fall into one step into min, mean and max", () => {
    const timeline = new Timeline(60);
    timeline.push(120, { cpu: 10 });
    timeline.push(121, { cpu: 40 });
    timeline.push(179, { cpu: 10 });
    timeline.push(180, { cpu: 5 });
    const { times, columns } = timeline.view(["cpu"]);
    expect(times).toEqual([120, 180]);
    expect(columns[0]).toEqual({ min: [10, 5], mean: [20, 5], max: [40, 5] });
  });

  test("learns a series that appears later", () => {
    const timeline = new Timeline();
    timeline.push(1, { cpu: 1 });
    timeline.push(2, { cpu: 2, "temperature_celsius:cpu": 50 });
    expect(timeline.view(["temperature_celsius:cpu"]).columns[0]?.mean).toEqual([null, 50]);
  });

  test("shows a hole as a hole, but not the rhythm of a host that is sampled every ten seconds", () => {
    const timeline = new Timeline();
    for (const at of [0, 10, 20, 100]) timeline.push(at, { cpu: at });
    const { times, columns } = timeline.view(["cpu"]);
    expect(times).toEqual([0, 10, 20, 21, 100]);
    expect(columns[0]?.mean).toEqual([0, 10, 20, null, 100]);
  });

  test("closes a hole when the gap is fetched", () => {
    const timeline = new Timeline();
    timeline.push(0, { cpu: 0 });
    timeline.push(100, { cpu: 100 });
    timeline.merge([range("cpu", [25, 50, 75].map((at) => flat(at, at)))]);
    expect(timeline.view(["cpu"]).times).toEqual([0, 25, 50, 75, 100]);
  });

  test("forgets what is older than the range, and only that", () => {
    const timeline = new Timeline();
    for (const at of [1, 2, 3, 4]) timeline.push(at, { cpu: at });
    timeline.trim(3);
    expect(timeline.view(["cpu"])).toMatchObject({ times: [3, 4], columns: [{ mean: [3, 4] }] });
  });

  test("answers for a series that it does not have with empty columns of its length", () => {
    const timeline = new Timeline();
    timeline.push(1, { cpu: 1 });
    expect(timeline.view(["load"]).columns[0]?.mean).toEqual([null]);
  });
});

describe("a stack", () => {
  test("raises each column by those below it", () => {
    expect(stacked([[1, 2], [10, 20], [100, null]])).toEqual([[1, 2], [11, 22], [111, 22]]);
  });

  test("has a hole where every column has one", () => {
    expect(stacked([[1, null, 3], [1, null, null]])).toEqual([[1, null, 3], [2, null, 3]]);
  });
});
