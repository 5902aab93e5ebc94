import { expect, test } from "vitest";
import { Attempt } from "../src/attempt.svelte";

test("an attempt is busy until it has worked or failed, and the next one forgets why", async () => {
  const attempt = new Attempt();
  let fail: (reason: Error) => void = () => undefined;
  const first = attempt.make(() => new Promise((_, reject) => (fail = reject)));
  expect(attempt.busy).toBe(true);
  fail(new Error("no"));
  expect(await first).toBe(false);
  expect([attempt.busy, attempt.failure]).toEqual([false, new Error("no")]);
  expect(await attempt.make(async () => undefined)).toBe(true);
  expect([attempt.busy, attempt.failure]).toEqual([false, null]);
});
