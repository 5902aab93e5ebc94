// The rules a new password is measured by while it is typed. The console decides; this only tells early.

import { t } from "./messages";

export const SHORTEST_ADMIN = 15;
export const SHORTEST = 12;

export interface Rule {
  text: string;
  met: boolean;
}

export function rules(password: string, name: string, shortest: number): Rule[] {
  const lower = password.toLowerCase();
  const own = name.trim().toLowerCase();
  return [
    { text: t.setup.rule_length(shortest), met: [...password].length >= shortest },
    { text: t.setup.rule_name, met: password !== "" && (own.length < 3 || !lower.includes(own)) },
    { text: t.setup.rule_product, met: new Set(password).size > 4 },
  ];
}
