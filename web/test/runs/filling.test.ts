import { execFileSync } from "node:child_process";
import { expect, test } from "vitest";
import { filled, fits, misfits, misplaced, names_in, quoted } from "../../src/runs/filling";

const HOSTILE = [
  "",
  " ",
  "plain-word_1.2/x",
  "two words",
  "it's",
  "'''",
  '"; rm -rf / #',
  "$(reboot)",
  "`reboot`",
  "${HOME}",
  "a\nb",
  "a\\",
  "\\'",
  "*",
  "~root",
  "-rf",
  "{a,b}",
  "ü€😀",
  "!!",
  "a=b",
  "$'\\x41'",
  "{{name}}",
];

test.each(HOSTILE)("%j reaches a real shell as one unchanged word", (value) => {
  for (const shell of ["sh", "bash"]) {
    const printed = execFileSync(shell, ["-c", filled("printf '%s.' a{{value}}z {{value}}", { value })], { encoding: "utf8" });
    expect(printed).toBe(`a${value}z.${value}.`);
  }
});

test("what needs no quotes gets none", () => {
  expect(quoted("nginx.service")).toBe("nginx.service");
  expect(quoted("")).toBe("''");
  expect(quoted("a b")).toBe("'a b'");
});

test("a value is put in once: what looks like a parameter inside it stays", () => {
  expect(filled("echo {{a}} {{b}}", { a: "{{b}}", b: "x" })).toBe("echo '{{b}}' x");
});

test("parameters are found once each, and other braces are left alone", () => {
  expect(names_in("cp {{from}} {{to}} {{from}} {{.Names}} {{ spaced }} {{9}} ${x}")).toEqual(["from", "to"]);
});

test("looking for mistakes leaves nothing behind for the next who looks", () => {
  for (let turn = 0; turn < 2; turn += 1) {
    expect(misplaced("a {{x}} '{{y}}'")).toEqual([{ name: "y", why: "quotes" }]);
    expect(names_in("{{x}} {{y}}")).toEqual(["x", "y"]);
    expect(filled("{{x}} {{y}}", { x: "1", y: "2" })).toBe("1 2");
  }
});

test("a pattern must match all of a value, and one that does not compile matches nothing", () => {
  expect(fits("nginx", "[a-z]+")).toBe(true);
  expect(fits("nginx; reboot", "[a-z]+")).toBe(false);
  expect(fits("a\nb", "a|b")).toBe(false);
  expect(fits("x", "a|x")).toBe(true);
  expect(fits("x", "(")).toBe(false);
  expect(fits("a_b", "[a-z\\_]+")).toBe(true);
  expect(fits("anything at all", null)).toBe(true);
  expect(fits("a\0b", null)).toBe(false);
  const parameters = [
    { name: "unit", label: "Unit", default: null, pattern: "[a-z]+" },
    { name: "lines", label: "Lines", default: "10", pattern: "\\d+" },
  ];
  expect(misfits(parameters, { unit: "nginx", lines: "many" })).toEqual(["lines"]);
  expect(misfits(parameters, {})).toEqual(["unit", "lines"]);
});

test.each([
  "systemctl restart {{x}}",
  "grep -- {{x}} /var/log/syslog | tail -n {{y}}",
  "journalctl --unit={{x}} # since yesterday",
  "echo $({{x}})",
  "[ {{x}} = y ] && echo yes",
  "echo 'it is' {{x}} \"and\" {{y}}",
  "cat <<< {{x}}",
  "echo a#{{x}}",
  "docker ps --format '{{.Names}}' {{x}}",
])("a parameter may stand where the shell reads words: %s", (command) => {
  expect(misplaced(command)).toEqual([]);
});

test.each([
  ["echo '{{x}}'", "quotes"],
  ['echo "{{x}}"', "quotes"],
  ['echo "$(cat {{x}})"', "quotes"],
  ["echo `cat {{x}}`", "quotes"],
  ["echo $'{{x}}'", "quotes"],
  ["echo \"a\\\"{{x}}\"", "quotes"],
  ["true # {{x}}", "comment"],
  ["cat <<EOF\n{{x}}\nEOF", "document"],
  ["echo $(( {{x}} ))", "arithmetic"],
  ["echo $[ {{x}} ]", "arithmetic"],
  ["a[{{x}}]=1", "arithmetic"],
  ["echo ${y:-{{x}}}", "expansion"],
  ["echo ${{{x}}}", "expansion"],
  ["echo ${{x}}", "expansion"],
  ["echo \\{{x}}", "expansion"],
] as const)("elsewhere it would be read in another way: %s", (command, why) => {
  expect(misplaced(command)).toEqual([{ name: "x", why }]);
});

test("a comment ends with its line", () => {
  expect(misplaced("# it's a list\nls {{x}}")).toEqual([]);
});
