// Who is logged in, as long as this page lives. Nothing of it is stored in the browser.

import * as api from "./api";
import * as remembered from "./audit/remembered";
import { router } from "./router.svelte";
import type { SessionBody } from "./types";

class Session {
  user = $state.raw<SessionBody["user"] | null>(null);
  known = $state(false);
  ended = $state(false);
  #permissions = $state.raw<ReadonlySet<string>>(new Set());

  may(permission: string): boolean {
    return this.#permissions.has(permission);
  }

  open(body: SessionBody): void {
    api.use_csrf_token(body.csrf_token ?? "");
    this.user = body.user;
    this.#permissions = new Set(body.permissions);
    this.known = true;
    this.ended = false;
  }

  close(): void {
    api.use_csrf_token("");
    this.user = null;
    this.#permissions = new Set();
    this.known = true;
  }

  /** Sort out who is here at the start of the page: a session, the first-run setup, or the login. */
  async start(): Promise<void> {
    if (router.route.view === "setup") {
      this.known = true;
      return;
    }
    try {
      this.open(await api.verify());
      if (router.route.view === "login") router.go(this.next(), { replace: true });
    } catch (failure) {
      if (failure instanceof api.ApiError && failure.status === 401) await this.#greet();
      else throw failure;
    }
  }

  async logout(): Promise<void> {
    const seen = remembered.all();
    await api.logout();
    // The console had the browser forget what it stored; which checkpoint it saw is what a later visit checks against.
    remembered.restore(seen);
    this.close();
    router.go("/login", { replace: true });
  }

  /** Where the login leads: the page that was asked for, never another origin. */
  next(): string {
    const wanted = router.query.get("next") ?? "/";
    return /^\/(?![/\\])/.test(wanted) ? wanted : "/";
  }

  async #greet(): Promise<void> {
    const { needed } = await api.setup_status();
    this.known = true;
    if (needed) router.go("/setup", { replace: true });
    else this.ask_login();
  }

  ask_login(): void {
    if (router.route.view === "login") return;
    const here = router.path + router.search;
    router.go(here === "/" ? "/login" : `/login?next=${encodeURIComponent(here)}`, { replace: true });
  }
}

export const session = new Session();

api.when_logged_out(() => {
  if (!session.user) return;
  session.close();
  session.ended = true;
  session.ask_login();
});
