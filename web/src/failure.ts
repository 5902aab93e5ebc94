import { ApiError } from "./api";
import { t } from "./messages";
import type { TestResult } from "./types";

/** What went wrong, as a sentence for a person. */
export function sentence(failure: unknown): string {
  if (!(failure instanceof ApiError)) return failure instanceof Error ? failure.message : String(failure);
  if (failure.code === "console_unreachable") return t.failed.unreachable;
  if (failure.code === "part_unreachable") return t.failed.part;
  if (failure.status === 429 && failure.retry_after_s) return t.failed.too_many(failure.retry_after_s);
  if (failure.problem.detail) return failure.problem.detail;
  return failure.problem.title || t.failed.unreadable(failure.status);
}

/** Why a test did not log in, and the remedy: a server that shows its key has not let anybody in yet. */
export function why_not_in(result: TestResult): string {
  const words = [result.sentence ?? result.reason ?? t.failed.title, result.remedy];
  return words.filter(Boolean).join(" ");
}

/** The field errors of a failure by field name. */
export function fields(failure: unknown): Record<string, string> {
  if (!(failure instanceof ApiError)) return {};
  return Object.fromEntries((failure.problem.errors ?? []).map((error) => [error.field, error.message]));
}
