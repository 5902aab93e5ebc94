// Paths to views. The address bar holds what a colleague needs to see the same thing.

export type Route =
  | { view: "fleet" }
  | { view: "server"; id: string }
  | { view: "runs"; section: string }
  | { view: "new_run" }
  | { view: "run"; id: string }
  | { view: "terminal" }
  | { view: "recordings" }
  | { view: "recording"; id: string }
  | { view: "audit"; section: string }
  | { view: "settings"; section: string }
  | { view: "login" }
  | { view: "setup" }
  | { view: "missing" };

export function match(path: string): Route {
  const [first = "", second, ...rest] = path.replace(/^\/|\/$/g, "").split("/");
  if (rest.length > 0) return { view: "missing" };
  if (first === "" && second === undefined) return { view: "fleet" };
  if (first === "servers" && second) return { view: "server", id: decodeURIComponent(second) };
  if (first === "runs" && second === undefined) return { view: "runs", section: "history" };
  if (first === "runs" && second) return second === "new" ? { view: "new_run" } : { view: "run", id: decodeURIComponent(second) };
  if ((first === "snippets" || first === "policy") && second === undefined) return { view: "runs", section: first };
  if (first === "terminal" && second === undefined) return { view: "terminal" };
  if (first === "recordings") return second ? { view: "recording", id: decodeURIComponent(second) } : { view: "recordings" };
  if (first === "audit") return { view: "audit", section: second ?? "log" };
  if (first === "settings") return { view: "settings", section: second ?? "account" };
  if ((first === "login" || first === "setup") && second === undefined) return { view: first };
  return { view: "missing" };
}

class Router {
  path = $state(location.pathname);
  search = $state(location.search);
  route = $derived(match(this.path));
  query = $derived(new URLSearchParams(this.search));

  constructor() {
    addEventListener("popstate", () => this.#read());
    document.addEventListener("click", (event) => this.#follow(event));
  }

  go(url: string, options: { replace?: boolean } = {}): void {
    if (options.replace) history.replaceState(null, "", url);
    else history.pushState(null, "", url);
    const before = this.path;
    this.#read();
    if (this.path !== before) scrollTo(0, 0);
  }

  /** What the query says under these names, as text: the same text means the same, whatever else has changed. */
  only(names: readonly string[]): string {
    const said = names.map((name) => [name, this.query.get(name) ?? ""] as [string, string]);
    return new URLSearchParams(said.filter(([, value]) => value)).toString();
  }

  /** Change some of the query and leave the rest; an empty value removes its name. */
  refine(changes: Record<string, string | null>): void {
    const query = new URLSearchParams(this.search);
    for (const [name, value] of Object.entries(changes)) {
      if (value) query.set(name, value);
      else query.delete(name);
    }
    const text = query.toString();
    this.go(this.path + (text ? `?${text}` : ""), { replace: true });
  }

  #read(): void {
    this.path = location.pathname;
    this.search = location.search;
  }

  #follow(event: MouseEvent): void {
    if (event.defaultPrevented || event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = event.target instanceof Element ? event.target.closest("a") : null;
    if (!link || link.target || link.origin !== location.origin) return;
    if (link.hasAttribute("download") || link.pathname.startsWith("/api/")) return;
    if (link.hash && link.pathname === location.pathname) return;
    event.preventDefault();
    this.go(link.pathname + link.search);
  }
}

export const router = new Router();
