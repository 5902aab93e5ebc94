// Files on a server, over the console. A name is any bytes: it is shown as text, and sent back as the console encoded it.

import { ApiError, call, csrf_header } from "../api";
import type { Problem } from "../types";

export interface Entry {
  name: string;
  /** The whole path, to be put into a query as it is. */
  encoded: string;
  kind: "file" | "directory" | "link" | "other";
  size_bytes: number | null;
  mode: number | null;
  modified_at: string | null;
}

export interface Directory {
  path: string;
  encoded: string;
  items: Entry[];
  is_complete: boolean;
}

export interface Sent {
  path: string;
  bytes: number;
  sha256: string;
}

const place = (server_id: string) => `/api/servers/${encodeURIComponent(server_id)}/files`;

/** What is in a directory; the account's home without one. `encoded` is percent-encoded already. */
export const list = (server_id: string, encoded: string | null, signal?: AbortSignal) =>
  call<Directory>("GET", `${place(server_id)}${encoded === null ? "" : `?path=${encoded}`}`, undefined, signal);

export const download_url = (server_id: string, encoded: string) => `${place(server_id)}/content?path=${encoded}`;

/** The directory above, percent-encoded; null for the root. */
export function parent(encoded: string): string | null {
  if (encoded === "/" || encoded === "") return null;
  const above = encoded.replace(/\/+$/, "").replace(/\/[^/]*$/, "");
  return above === "" ? "/" : above;
}

/** A path in a directory, percent-encoded. */
export function within(directory: string, name: string): string {
  return `${directory.replace(/\/+$/, "")}/${encodeURIComponent(name)}`;
}

/**
 * Send a file, all of it or nothing. `fetch` tells nothing of how far an upload is, so it is a request of the older kind.
 */
export function upload(
  server_id: string,
  encoded: string,
  file: File,
  options: { replace: boolean; tell: (share: number) => void; signal: AbortSignal },
): Promise<Sent> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", `${place(server_id)}/content?path=${encoded}${options.replace ? "&replace=true" : ""}`);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    for (const [name, value] of Object.entries(csrf_header())) request.setRequestHeader(name, value);
    request.upload.onprogress = ({ loaded, total }) => options.tell(total > 0 ? loaded / total : 1);
    request.onload = () => {
      if (request.status === 201) resolve(JSON.parse(request.responseText) as Sent);
      else reject(refused(request));
    };
    request.onerror = () => reject(new ApiError({ title: "Unreachable", status: 0, detail: "", code: "console_unreachable" }));
    request.onabort = () => reject(options.signal.reason);
    options.signal.addEventListener("abort", () => request.abort(), { once: true });
    request.send(file);
  });
}

function refused(request: XMLHttpRequest): ApiError {
  let problem: Problem;
  try {
    problem = JSON.parse(request.responseText) as Problem;
  } catch {
    problem = { title: request.statusText, status: request.status, detail: "", code: "unreadable" };
  }
  return new ApiError({ ...problem, status: request.status });
}
