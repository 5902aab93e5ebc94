// The choices of the person, as a screen takes them.

import { choices } from "./choices.svelte";
import { colours, least_contrast } from "./schemes";
import type { Looks } from "./screen";

export function looks(): Looks {
  return {
    theme: colours(choices.scheme, choices.is_page_dark),
    size_px: choices.size_px,
    least_contrast: least_contrast(choices.scheme),
    is_spoken: choices.is_spoken,
  };
}
