// Every action that the console can record has its sentence, and no sentence is for an action that it cannot.

import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { audit } from "../src/messages/audit.en";

const chain = readFileSync(new URL("../../src/server_monitor/audit/chain.py", import.meta.url), "utf8");
const catalogue = /^ACTIONS = frozenset\(\n([\s\S]*?)^\)/m.exec(chain)?.[1] ?? "";
const ACTIONS = [...catalogue.matchAll(/"([a-z_]+\.[a-z_]+)"/g)].map(([, action]) => action as string);

test("the sentences are those of the catalogue", () => {
  expect(ACTIONS.length).toBeGreaterThan(30);
  expect(Object.keys(audit.sentences).sort()).toEqual(ACTIONS.sort());
});

test.each(ACTIONS)("%s reads as a sentence, whatever is known of it", (action) => {
  for (const what of ["web-1", ""]) {
    for (const failed of [false, true]) {
      const words = audit.sentences[action]?.({ what, meta: {}, failed }) ?? "";
      expect(words).toMatch(/^[a-z].*[a-z1-9]$/);
      expect(words).not.toMatch(/undefined|null|NaN| {2}/);
    }
  }
});
