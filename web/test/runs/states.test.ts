import { expect, test } from "vitest";
import type { Task } from "../../src/runs/calls";
import { in_order, parts, progress_of, retried, shown_state, shown_task, with_news, type Status } from "../../src/runs/states";

const task = (id: string, status: Status, server_name = id) => ({ id, status, server_name, cause: null, sentence: null }) as Task;
const state = (...statuses: Status[]) => shown_state({ progress: progress_of(statuses.map((status) => ({ status }))) });

test("a run is what its tasks are at, and afterwards the worst of their ends", () => {
  expect(state("queued", "queued")).toBe("queued");
  expect(state("queued", "success")).toBe("running");
  expect(state("awaiting_approval")).toBe("awaiting_approval");
  expect(state("success", "success")).toBe("success");
  expect(state("success", "failed")).toBe("partly");
  expect(state("failed", "skipped")).toBe("failed");
  expect(state("cancelled", "cancelled")).toBe("cancelled");
  expect(state("timeout", "interrupted")).toBe("timeout");
  expect(state("denied")).toBe("denied");
});

test("what was told to end is shown so at once, and as long as it runs", () => {
  const cancelled_at = "2026-01-01T00:00:00Z";
  const of = (...statuses: Status[]) => shown_state({ progress: progress_of(statuses.map((status) => ({ status }))), cancelled_at });
  expect(of("running", "cancelled")).toBe("cancelling");
  expect(of("cancelled", "interrupted")).toBe("interrupted");
  expect(shown_task({ status: "running", cancel_requested_at: cancelled_at })).toBe("cancelling");
  expect(shown_task({ status: "running", cancel_requested_at: null })).toBe("running");
  expect(shown_task({ status: "interrupted", cancel_requested_at: cancelled_at })).toBe("interrupted");
});

test("numbers by state, the finished parts first", () => {
  const progress = progress_of([task("a", "running"), task("b", "failed"), task("c", "success"), task("d", "skipped")]);
  expect(progress).toMatchObject({ total: 4, open: 1, failed: 1 });
  expect(parts(progress).map(({ state }) => state)).toEqual(["success", "failed", "skipped", "running"]);
  expect(retried(progress)).toBe(2);
});

test("servers are in the order in which people count", () => {
  const names = in_order([task("1", "queued", "web-10"), task("2", "queued", "web-9"), task("3", "queued", "Db")]);
  expect(names.map(({ server_name }) => server_name)).toEqual(["Db", "web-9", "web-10"]);
});

test("news move tasks on and never back", () => {
  const tasks = [task("a", "running"), task("b", "success")];
  const news = (id: string, status: Status) => ({ id, status, server_id: id, cause: null, exit_code: 0 });
  expect(with_news(tasks, [news("a", "failed")]).map(({ status }) => status)).toEqual(["failed", "success"]);
  expect(with_news(tasks, [news("b", "running"), news("a", "running"), news("x", "failed")])).toBe(tasks);
});
