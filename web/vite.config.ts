import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";

const console_url = process.env.CONSOLE_URL ?? "http://127.0.0.1:9083";

export default defineConfig({
  plugins: [svelte()],
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
