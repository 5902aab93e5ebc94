// The time, once a second, for as long as something on the page shows it.

import { createSubscriber } from "svelte/reactivity";

let now_ms = Date.now();

const subscribe = createSubscriber((update) => {
  const ticking = setInterval(() => {
    now_ms = Date.now();
    update();
  }, 1_000);
  return () => clearInterval(ticking);
});

export function now_s(): number {
  subscribe();
  now_ms = Math.max(now_ms, Date.now());
  return now_ms / 1000;
}
