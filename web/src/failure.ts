import { ApiError } from "./api";
import { t } from "./messages";

/** What went wrong, as a sentence for a person. */
export function sentence(failure: unknown): string {
  if (!(failure instanceof ApiError)) return failure instanceof Error ? failure.message : String(failure);
  if (failure.code === "console_unreachable") return t.failed.unreachable;
  if (failure.status === 429 && failure.retry_after_s) return t.failed.too_many(failure.retry_after_s);
  if (failure.problem.detail) return failure.problem.detail;
  return failure.problem.title || t.failed.unreadable(failure.status);
}

/** The field errors of a failure by field name. */
export function fields(failure: unknown): Record<string, string> {
  if (!(failure instanceof ApiError)) return {};
  return Object.fromEntries((failure.problem.errors ?? []).map((error) => [error.field, error.message]));
}
