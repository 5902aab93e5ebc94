import { expect, test } from "vitest";
import { link } from "../../src/terminal/links";

test("a web address is shown with where it leads", () => {
  expect(link("https://docs.example.org:8443/a?b=c#d")).toEqual({
    url: "https://docs.example.org:8443/a?b=c#d",
    host: "docs.example.org:8443",
    before: "https://",
    after: "/a?b=c#d",
  });
});

test("letters that look like others are written out", () => {
  expect(link("https://аpple.com/")?.host).toBe("xn--pple-43d.com");
});

test.each([
  "javascript:alert(1)",
  "data:text/html,<script>alert(1)</script>",
  "file:///etc/passwd",
  "ssh://host",
  "vscode://file/x",
  " https://example.org",
  "https://bank.example@evil.example/",
  "https://user:pass@evil.example/",
  "https://",
  "//evil.example",
  "blob:https://example.org/1",
  `https://example.org/${"a".repeat(3_000)}`,
])("%s is no link", (text) => {
  expect(link(text)).toBeNull();
});
