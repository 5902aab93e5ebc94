import { expect, test } from "vitest";
import { from_query, keep, take } from "../../src/runs/draft";

test("an address says where to run and what", () => {
  const query = new URLSearchParams("server=a&server=b&group=g&label=env=prod&label=tier=a=b&label=bare&command=uptime");
  expect(from_query(query)).toEqual({
    command: "uptime",
    selector: { servers: ["a", "b"], groups: ["g"], labels: { env: "prod", tier: "a=b", bare: "" } },
  });
  expect(from_query(new URLSearchParams("again=x"))).toBeNull();
});

test("what was kept is taken once", () => {
  keep({ command: "uptime" });
  expect(take()).toEqual({ command: "uptime" });
  expect(take()).toBeNull();
});
