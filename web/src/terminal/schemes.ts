// The sixteen colours of a terminal, its paper and its ink. xterm.js wants them as values, so they are not in tokens.css.

import type { ITheme } from "@xterm/xterm";

export const SCHEMES = ["auto", "light", "dark", "contrast", "solarized"] as const;
export type Scheme = (typeof SCHEMES)[number];

const LIGHT: ITheme = {
  background: "#ffffff",
  overviewRulerBorder: "#ffffff",
  foreground: "#1f2430",
  cursor: "#2760c4",
  cursorAccent: "#ffffff",
  selectionBackground: "#bcd4fb",
  selectionInactiveBackground: "#dde5f1",
  scrollbarSliderBackground: "#1f243026",
  scrollbarSliderHoverBackground: "#1f243045",
  scrollbarSliderActiveBackground: "#1f243060",
  black: "#1f2430",
  red: "#b3261e",
  green: "#1b6e3c",
  yellow: "#7f5700",
  blue: "#2455b5",
  magenta: "#8a2f9b",
  cyan: "#0b6a78",
  white: "#6a7180",
  brightBlack: "#5b6270",
  brightRed: "#c8372d",
  brightGreen: "#217d47",
  brightYellow: "#8f6200",
  brightBlue: "#2f66cf",
  brightMagenta: "#9c3fae",
  brightCyan: "#0d7787",
  brightWhite: "#3a4150",
};

const DARK: ITheme = {
  background: "#12161d",
  overviewRulerBorder: "#12161d",
  foreground: "#d9dee7",
  cursor: "#7fb0ff",
  cursorAccent: "#12161d",
  selectionBackground: "#2f4a78",
  selectionInactiveBackground: "#2a3342",
  scrollbarSliderBackground: "#d9dee720",
  scrollbarSliderHoverBackground: "#d9dee740",
  scrollbarSliderActiveBackground: "#d9dee760",
  black: "#2a313d",
  red: "#f07e74",
  green: "#78c98a",
  yellow: "#e0b45c",
  blue: "#7fabf5",
  magenta: "#cf9be8",
  cyan: "#6fc7d1",
  white: "#c4cbd6",
  brightBlack: "#818b9c",
  brightRed: "#ff9d94",
  brightGreen: "#96dfa6",
  brightYellow: "#f2cb7e",
  brightBlue: "#a3c4ff",
  brightMagenta: "#e1baf5",
  brightCyan: "#93dde5",
  brightWhite: "#f4f6fa",
};

const CONTRAST: ITheme = {
  ...DARK,
  background: "#000000",
  overviewRulerBorder: "#000000",
  foreground: "#ffffff",
  cursor: "#ffff00",
  cursorAccent: "#000000",
  selectionBackground: "#0050c8",
  selectionInactiveBackground: "#404040",
  black: "#000000",
  white: "#ffffff",
  brightBlack: "#b0b0b0",
  brightWhite: "#ffffff",
};

const SOLARIZED: ITheme = {
  background: "#002b36",
  overviewRulerBorder: "#002b36",
  foreground: "#aebcbd",
  cursor: "#eee8d5",
  cursorAccent: "#002b36",
  selectionBackground: "#0f5365",
  selectionInactiveBackground: "#0b3d4a",
  scrollbarSliderBackground: "#93a1a130",
  scrollbarSliderHoverBackground: "#93a1a150",
  scrollbarSliderActiveBackground: "#93a1a170",
  black: "#073642",
  red: "#dc322f",
  green: "#859900",
  yellow: "#b58900",
  blue: "#268bd2",
  magenta: "#d33682",
  cyan: "#2aa198",
  white: "#eee8d5",
  brightBlack: "#839496",
  brightRed: "#cb4b16",
  brightGreen: "#93a1a1",
  brightYellow: "#c9a227",
  brightBlue: "#66b3e6",
  brightMagenta: "#9a9de0",
  brightCyan: "#6cc8c0",
  brightWhite: "#fdf6e3",
};

const BY_NAME: Record<Exclude<Scheme, "auto">, ITheme> = { light: LIGHT, dark: DARK, contrast: CONTRAST, solarized: SOLARIZED };

/** `auto` is as light or dark as the page. */
export function colours(scheme: Scheme, is_page_dark: boolean): ITheme {
  return BY_NAME[scheme === "auto" ? (is_page_dark ? "dark" : "light") : scheme];
}

/** Text that a host colours too faintly is drawn darker or lighter until it can be read. */
export function least_contrast(scheme: Scheme): number {
  return scheme === "contrast" ? 7 : 4.5;
}
