import { afterEach, expect, test, vi } from "vitest";
import { approvals } from "../../src/runs/approvals.svelte";

afterEach(() => vi.unstubAllGlobals());

test("only what one may decide about is counted, and nothing once nobody looks", async () => {
  vi.stubGlobal("document", Object.assign(new EventTarget(), { hidden: false }));
  vi.stubGlobal("fetch", async () => Response.json({ items: [{ may_decide: true }, { may_decide: false }, { may_decide: true }] }));
  const stop = approvals.start();
  await vi.waitFor(() => expect(approvals.waiting).toBe(2));
  stop();
  expect(approvals.waiting).toBe(0);
});
