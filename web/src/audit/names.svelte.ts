// Names for the ids in the log, as far as they exist today, and the sentence that a record makes with them.

import * as api from "../api";
import { fleet } from "../fleet.svelte";
import { t } from "../messages";
import type { User } from "../types";
import type { AuditItem } from "./calls";

class Names {
  users = $state.raw<readonly User[]>([]);
  #groups = $state.raw<ReadonlyMap<string, string>>(new Map());

  /** Names that cannot be had leave ids in their places; the log is readable without. */
  async load(): Promise<void> {
    const [users, groups] = await Promise.allSettled([api.users(), api.groups()]);
    if (users.status === "fulfilled") this.users = users.value.items;
    if (groups.status === "fulfilled") this.#groups = new Map(groups.value.items.map(({ id, name }) => [id, name]));
  }

  of(type: string | null, id: string | null): string {
    if (!id) return "";
    if (type === "server") return fleet.by_id.get(id)?.name ?? short(id);
    if (type === "user") return this.users.find((user) => user.id === id)?.name ?? short(id);
    return this.#groups.get(id) ?? short(id);
  }
}

export const names = new Names();

function short(id: string): string {
  return id.length > 20 ? `…${id.slice(-8)}` : id;
}

export function who(item: Pick<AuditItem, "username" | "user_id">): string {
  const name = item.username ?? "";
  if (name === "system" || name.startsWith("system:")) return t.audit.system;
  if (name === "" || name === "anonymous") return t.audit.nobody;
  return name;
}

/** What they did: the words after the name. `what` overrides the name that the record tells, or its target has now. */
export function predicate(item: AuditItem, what?: string): string {
  if (!item.action) return t.audit.unreadable;
  const meta = item.meta_json ?? {};
  const told = [meta.name, meta.server].find((name) => typeof name === "string");
  const sentence = t.audit.sentences[item.action];
  const failed = item.outcome !== null && item.outcome !== "success";
  return sentence?.({ what: what ?? told ?? names.of(item.target_type, item.target_id), meta, failed }) ?? t.audit.unknown_sentence(item.action);
}

/** A record's time as everybody's log has it: UTC, to the second. */
export function utc(at: string | null): string {
  return at ? at.slice(0, 19).replace("T", " ") : "";
}
