import { svelte } from "@sveltejs/vite-plugin-svelte";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

const console_url = process.env.CONSOLE_URL ?? "http://127.0.0.1:9083";

/**
 * xterm.js writes style elements and style attributes, which the console's policy refuses. Both have a twin that it
 * allows: a constructed style sheet (src/terminal/adopted_style.ts) and the style as a property. A version of xterm.js
 * that writes them in another way stops the build.
 */
const REWRITTEN: readonly [written: string, times: number, instead: string][] = [
  ['createElement("style")', 3, 'createElement("adopted-style")'],
  ['t.setAttribute("style",`${t.getAttribute("style")||""}${e};`)', 1, "t.style.cssText+=`${e};`"],
];

function xterm_without_inline_styles(): Plugin {
  return {
    name: "xterm-without-inline-styles",
    transform(code, id) {
      if (!id.includes("@xterm/xterm/lib/xterm.mjs")) return null;
      return REWRITTEN.reduce((now, [written, times, instead]) => {
        const parts = now.split(written);
        if (parts.length !== times + 1) throw new Error(`xterm.js has ${parts.length - 1} of ${written}, not ${times}`);
        return parts.join(instead);
      }, code);
    },
  };
}

export default defineConfig({
  plugins: [svelte(), xterm_without_inline_styles()],
  // Served as it is, so that the plugin sees it.
  optimizeDeps: { exclude: ["@xterm/xterm"] },
  build: {
    outDir: "../src/server_monitor/static",
    emptyOutDir: true,
    // The console's policy allows its own files only: nothing is inlined, nothing is injected.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: ["chrome123", "firefox121", "safari17.5"],
  },
  server: {
    proxy: {
      "/api": { target: console_url },
      "/ws": { target: console_url, ws: true },
    },
  },
  test: { include: ["test/**/*.test.ts"], environment: "node" },
});
