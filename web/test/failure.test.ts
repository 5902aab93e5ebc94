import { expect, test } from "vitest";
import { why_not_in } from "../src/failure";
import type { TestResult } from "../src/types";

const shown: TestResult = {
  reachable: true,
  logged_in: false,
  reason: "auth_failed",
  sentence: "web-1 refused to let us in as ops.",
  remedy: "Check the account.",
  detail: null,
  offered: [],
  latency_ms: 12,
};

test("a server that shows its key and lets nobody in is told with the remedy", () => {
  expect(why_not_in(shown)).toBe("web-1 refused to let us in as ops. Check the account.");
  expect(why_not_in({ ...shown, sentence: null, remedy: null })).toBe("auth_failed");
});
