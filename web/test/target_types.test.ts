// The kinds of targets that the filters of the log offer are those that the console records.

import { globSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { TARGET_TYPES } from "../src/audit/calls";

const SOURCE = new URL("../../src/server_monitor/", import.meta.url);
const modules = globSync("**/*.py", { cwd: SOURCE }).map((path) => readFileSync(new URL(path, SOURCE), "utf8"));
const recorded = modules.flatMap((text) => [...text.matchAll(/AuditTarget\(\s*"([a-z_]+)"|^TARGET = "([a-z_]+)"/gm)].map((found) => found[1] ?? found[2]));

test("every kind that is recorded is offered, and no other", () => {
  expect([...new Set(recorded)].sort()).toEqual([...TARGET_TYPES]);
});
