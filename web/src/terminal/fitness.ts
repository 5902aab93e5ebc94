// Whether a server takes terminals, and what is in the way. Pure.

import { shown_status } from "../rows";
import type { Server } from "../types";

export type Obstacle = "local" | "disabled" | "capability" | "unapproved";

export function obstacle(server: Server): Obstacle | null {
  // The account of the console can read the keys of all servers: no shell of it is ever in a browser.
  if (server.auth === "local") return "local";
  if (!server.enabled) return "disabled";
  if (server.capability !== "terminal") return "capability";
  return shown_status(server) === "unapproved" ? "unapproved" : null;
}
