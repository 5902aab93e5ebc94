import { expect, test } from "vitest";
import { findings_of, indices, stretches } from "../../src/runs/spans";

test("bytes of UTF-8 become places in the string", () => {
  const text = "aé€😀b";
  expect(indices(text, [0, 1, 3, 6, 10, 11])).toEqual([0, 1, 2, 3, 5, 6]);
  expect(indices(text, [99, 2])).toEqual([6, 1]);
  expect(indices("", [0, 5])).toEqual([0, 0]);
});

test("every place in every text agrees with the encoder", () => {
  const text = "echo 'ü€😀' && rm -rf /ŝrv";
  for (let index = 0; index <= text.length; index += 1) {
    const code = text.charCodeAt(index);
    if (code >= 0xdc00 && code <= 0xdfff) continue;
    const bytes = new TextEncoder().encode(text.slice(0, index)).length;
    expect(indices(text, [bytes])).toEqual([index]);
  }
});

test("the worst finding marks a stretch, and what is allowed is not marked", () => {
  const found = stretches("échо rm -rf /", [
    { span: [7, 15], verdict: "needs_approval" },
    { span: [7, 9], verdict: "deny" },
    { span: [0, 6], verdict: "allow" },
  ]);
  expect(found.map(({ text }) => text).join("")).toBe("échо rm -rf /");
  expect(found.filter(({ ruling }) => ruling)).toEqual([
    { text: "rm", ruling: "deny" },
    { text: " -rf /", ruling: "needs_approval" },
  ]);
});

test("findings without a place mark nothing", () => {
  expect(stretches("ls", [{ span: null, verdict: "deny" }, { span: [1, 1], verdict: "deny" }])).toEqual([{ text: "ls", ruling: null }]);
  expect(stretches("", [])).toEqual([]);
});

test("the worst finding comes first, and a reason alone is a finding too", () => {
  const found = findings_of({
    verdict: "deny",
    findings: [
      { rule: "a", verdict: "needs_approval", why: "may" },
      { rule: "b", verdict: "deny", why: "must not" },
    ],
  });
  expect(found.map(({ rule }) => rule)).toEqual(["b", "a"]);
  expect(findings_of({ verdict: "deny", reason: "is not listed" })[0]?.why).toBe("is not listed");
  expect(findings_of({ verdict: "allow", findings: [] })).toEqual([]);
});
