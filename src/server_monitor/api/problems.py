"""Errors as RFC 9457 problems: the one table from our error codes to HTTP statuses."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from server_monitor import errors
from server_monitor.telemetry.logs import logger, request_context
from server_monitor.telemetry.redact import redact_text

log = logger(__name__)

MEDIA_TYPE = "application/problem+json"

# A subclass without a line of its own takes its parent's.
STATUS: Mapping[type[errors.Failure], int] = {
    errors.NotFound: 404,
    errors.Unauthenticated: 401,
    errors.Denied: 403,
    errors.Conflict: 409,
    errors.Gone: 410,
    errors.Invalid: 422,
    errors.TooMany: 429,
    errors.Unreachable: 502,
    errors.Unavailable: 503,
}

# Codes of what HTTP itself refuses, before any of our code is reached.
HTTP_CODES: Mapping[int, str] = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    421: "unknown_host",
    431: "headers_too_large",
}

RETRY_AFTER_UNAVAILABLE_S = 2
_TOLD = 5


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    fields: Sequence[errors.FieldError] = (),
    headers: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Response:
    """One problem document. `detail` is a sentence for a person and holds nothing that helps an attacker."""
    context = request_context.get()
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": context.request_id if context else None,
    }
    if fields:
        document["errors"] = [_field(field) for field in fields]
    document |= more or {}
    return Response(orjson.dumps(document), status, dict(headers or {}), MEDIA_TYPE)


def policy_denied(verdict: Mapping[str, Any]) -> Response:
    """The refusal of a command, with everything that the policy found."""
    why = next((str(one["why"]) for one in verdict.get("findings", ())), "it is not on the list of what may run")
    # The sentence goes into logs of proxies and browsers; what stands in the verdict is shown beside the command.
    detail = f"The command policy does not allow this: {redact_text(why)}."
    return problem(403, "policy_denied", detail, more={"verdict": verdict})


def of_failure(failure: errors.Failure) -> Response:
    """The response for one of our own errors."""
    status = next(STATUS[kind] for kind in type(failure).__mro__ if kind in STATUS)
    headers = {}
    if isinstance(failure, errors.TooMany):
        headers["Retry-After"] = str(failure.retry_after_s)
    elif status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(RETRY_AFTER_UNAVAILABLE_S)
    elif status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(failure, errors.Invalid):
        return problem(status, failure.code, _first_of(failure.errors), fields=failure.errors, headers=headers)
    return problem(status, failure.code, str(failure), headers=headers)


def install(app: FastAPI) -> None:
    """Answer every error of `app` with a problem."""
    app.add_exception_handler(errors.Failure, _on_failure)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_error)


async def _on_failure(_request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.Failure)
    if isinstance(error, errors.Unavailable):
        log.warning("request_unavailable", cause=str(error))
    return of_failure(error)


async def _on_invalid_request(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    fields = [_validation_field(mistake) for mistake in error.errors()]
    return problem(422, errors.Invalid.code, _first_of(fields), fields=fields)


async def _on_http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = HTTP_CODES.get(error.status_code, "http_error")
    return problem(error.status_code, code, str(error.detail), headers=error.headers)


def _first_of(fields: Sequence[errors.FieldError]) -> str:
    """The first mistakes as one text; all of them stand in `errors`, and there may be ten thousand."""
    words = [f"{field.field}: {field.message}" for field in fields[:_TOLD]]
    if len(fields) > _TOLD:
        words.append(f"and {len(fields) - _TOLD:,} more")
    return "; ".join(words)


def _field(field: errors.FieldError) -> dict[str, Any]:
    line = {} if field.line is None else {"line": field.line}
    return {"field": field.field, "message": field.message} | line


def _validation_field(mistake: Mapping[str, Any]) -> errors.FieldError:
    """A mistake as the validator reports it, without the value: it may be a password."""
    where = [str(part) for part in mistake["loc"] if part not in {"body", "query", "path", "header"}]
    message = "is not known here; remove it" if mistake["type"] == "extra_forbidden" else str(mistake["msg"])
    return errors.FieldError(".".join(where) or "body", message)
