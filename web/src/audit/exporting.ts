// An export as one file: parts of up to 50,000 records, one after the other, from the snapshot of the first.

import { stream } from "../api";
import type { Filters } from "./calls";

export type Format = "csv" | "json";

/** What the database has no longer: records before `first_seq`, from before this time. Only the archive has them. */
export interface Pruned {
  first_seq: number;
  before: string;
}

export interface Progress {
  /** Records of the parts that have begun; what each part holds is known before its first byte. */
  rows: number;
  size_bytes: number;
  has_more: boolean;
  /** What the file may lack. */
  pruned: Pruned | null;
}

export interface Exported extends Progress {
  blob: Blob;
  name: string;
}

const PART = 50_000;
const BLOB_BYTES = 8 * 1024 * 1024;

export async function run(
  format: Format,
  filters: Filters,
  is_whole: boolean,
  tell: (progress: Progress) => void,
  signal: AbortSignal,
): Promise<Exported> {
  const parts: BlobPart[] = [];
  const progress: Progress = { rows: 0, size_bytes: 0, has_more: false, pruned: null };
  let checkpoint: unknown = null;
  let cursor = "";
  let name = `audit.${format}`;
  do {
    const search = new URLSearchParams({ ...filters, limit: String(PART), ...(cursor ? { cursor } : {}) });
    const response = await stream(`/api/export/audit/${format}?${search}`, signal);
    const rows = Number(response.headers.get("X-Row-Count"));
    name = cursor ? name : (file_name(response) ?? name);
    progress.pruned ??= pruned(response);
    const is_first = cursor === "";
    cursor = response.headers.get("X-Next-Cursor") ?? "";
    progress.rows += rows;
    progress.has_more = cursor !== "";
    const chunks = await received(response, (size_bytes) => {
      progress.size_bytes += size_bytes;
      tell({ ...progress });
    });
    if (format === "csv") {
      parts.push(...csv_part(chunks, is_first));
    } else {
      const part = await json_part(chunks);
      checkpoint = part.checkpoint;
      parts.push(is_first ? '{"items":[' : part.items && ",", part.items);
    }
  } while (is_whole && cursor);
  if (format === "json") parts.push(`],"count":${progress.rows},"next":${cursor ? JSON.stringify(cursor) : "null"},"checkpoint":${JSON.stringify(checkpoint)}}`);
  const type = format === "csv" ? "text/csv;charset=utf-8" : "application/json";
  return { ...progress, blob: new Blob(parts, { type }), name };
}

/** The log as one file, with its checkpoints and a verifier. */
export async function bundle(
  with_archive: boolean,
  tell: (progress: { rows: number; size_bytes: number }) => void,
  signal: AbortSignal,
): Promise<{ blob: Blob; name: string }> {
  const response = await stream(`/api/audit/bundle${with_archive ? "?archive=true" : ""}`, signal);
  const rows = Number(response.headers.get("X-Row-Count"));
  let blob = new Blob();
  let waiting: BlobPart[] = [];
  let waiting_bytes = 0;
  const reader = response.body?.getReader();
  for (let read = await reader?.read(); read && !read.done; read = await reader?.read()) {
    waiting.push(read.value as Uint8Array<ArrayBuffer>);
    waiting_bytes += read.value.length;
    tell({ rows, size_bytes: blob.size + waiting_bytes });
    // A browser may keep a blob on its disk, and cannot do so with what scripts hold.
    if (waiting_bytes > BLOB_BYTES) [blob, waiting, waiting_bytes] = [new Blob([blob, ...waiting]), [], 0];
  }
  return { blob: new Blob([blob, ...waiting], { type: "application/gzip" }), name: file_name(response) ?? "audit.tar.gz" };
}

function file_name(response: Response): string | undefined {
  return /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition") ?? "")?.[1];
}

function pruned(response: Response): Pruned | null {
  const before = response.headers.get("X-Pruned-Before");
  return before === null ? null : { first_seq: Number(response.headers.get("X-First-Seq")), before };
}

async function received(response: Response, tell: (size_bytes: number) => void): Promise<Uint8Array<ArrayBuffer>[]> {
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  const reader = response.body?.getReader();
  for (let read = await reader?.read(); read && !read.done; read = await reader?.read()) {
    chunks.push(read.value as Uint8Array<ArrayBuffer>);
    tell(read.value.length);
  }
  return chunks;
}

/** Every part begins with the header; the file has it once. */
function csv_part(chunks: Uint8Array<ArrayBuffer>[], is_first: boolean): BlobPart[] {
  if (is_first) return chunks;
  const blob = joined(chunks);
  return [blob.slice(blob.indexOf(10) + 1)];
}

async function json_part(chunks: Uint8Array<ArrayBuffer>[]): Promise<{ items: string; checkpoint: unknown }> {
  const part = JSON.parse(await new Blob(chunks).text()) as { items: unknown[]; checkpoint: unknown };
  return { items: JSON.stringify(part.items).slice(1, -1), checkpoint: part.checkpoint };
}

function joined(chunks: Uint8Array<ArrayBuffer>[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(chunks.reduce((length, chunk) => length + chunk.length, 0));
  let offset = 0;
  for (const chunk of chunks) {
    whole.set(chunk, offset);
    offset += chunk.length;
  }
  return whole;
}

export function save(blob: Blob, name: string): void {
  const url = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
