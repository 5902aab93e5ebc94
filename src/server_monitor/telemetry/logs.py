"""Structured logs on stderr, and the request that each line belongs to."""

import logging
import sys
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TextIO

import structlog

from server_monitor.telemetry.redact import redact, redact_text


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Where the work at hand comes from. `via` is web, api, ws, cli or system; `route` a template, never a raw URL."""

    request_id: str
    via: str
    ip: str | None = None
    port: int | None = None
    user_agent: str | None = None
    method: str | None = None
    route: str | None = None


request_context: ContextVar[RequestContext | None] = ContextVar("request_context", default=None)


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger for a module: `log.info("server_connected", server_id=…)`. Events are names, facts are fields."""
    return structlog.get_logger(name)  # type: ignore[no-any-return]


def set_up_logs(log_format: str, level: str, stream: TextIO = sys.stderr) -> None:
    """Send every log line of the process to `stream`, as JSON or for a person's eyes.

    An empty `log_format` means JSON unless the stream is a terminal.
    """
    as_json = log_format == "json" or (not log_format and not stream.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_request_id,
        structlog.processors.format_exc_info,  # before it is redacted, and without what the variables hold
        _redact,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        cache_logger_on_first_use=True,
    )
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # asyncssh and the HTTP server narrate every connection; theirs is only wanted when it is a problem.
    for noisy in ("asyncssh", "uvicorn", "uvicorn.access", "alembic", "aiosqlite", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _add_request_id(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    context = request_context.get()
    if context is not None:
        event.setdefault("request_id", context.request_id)
    return event


def _redact(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    for name in list(event):
        if name == "exc_info" or name.startswith("_"):
            continue
        event[name] = redact_text(event[name]) if name == "event" else redact({name: event[name]})[name]
    return event
