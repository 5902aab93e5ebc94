// Dark, light, or what the system says. The choice is kept in this browser; it is no secret.

export type Theme = "system" | "light" | "dark";

const dark_system = matchMedia("(prefers-color-scheme: dark)");

class ThemeChoice {
  chosen = $state<Theme>(read());
  #system_dark = $state(dark_system.matches);
  dark = $derived(this.chosen === "dark" || (this.chosen === "system" && this.#system_dark));

  constructor() {
    dark_system.addEventListener("change", (event) => {
      this.#system_dark = event.matches;
    });
  }

  choose(theme: Theme): void {
    this.chosen = theme;
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    try {
      if (theme === "system") localStorage.removeItem("theme");
      else localStorage.setItem("theme", theme);
    } catch {
      // Storage is switched off: the choice lasts as long as the page.
    }
  }
}

function read(): Theme {
  const theme = document.documentElement.dataset.theme;
  return theme === "dark" || theme === "light" ? theme : "system";
}

export const theme = new ThemeChoice();
