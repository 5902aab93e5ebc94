// A style element that the console's policy allows. xterm.js writes its rules into `<style>`, which the policy refuses as
// it refuses everything that is written into the page; a constructed style sheet is a script's own doing, and allowed.
// The build gives xterm.js this element in place of the other (see vite.config.ts).

export const ADOPTED_STYLE = "adopted-style";

class AdoptedStyle extends HTMLElement {
  #sheet = new CSSStyleSheet();

  override set textContent(rules: string) {
    this.#sheet.replaceSync(rules);
  }

  connectedCallback(): void {
    document.adoptedStyleSheets = [...document.adoptedStyleSheets, this.#sheet];
  }

  disconnectedCallback(): void {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((sheet) => sheet !== this.#sheet);
  }
}

if (!customElements.get(ADOPTED_STYLE)) customElements.define(ADOPTED_STYLE, AdoptedStyle);
