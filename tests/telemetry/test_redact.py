"""Secrets do not reach a log line or a record, whatever they are wrapped in."""

import io
import json
import logging

import pytest

from server_monitor.telemetry.logs import RequestContext, logger, request_context, set_up_logs
from server_monitor.telemetry.redact import MASK, redact, redact_text

CANARY = "cAnArY0123456789abcdef"


@pytest.mark.parametrize(
    "text",
    [
        f"-----BEGIN OPENSSH PRIVATE KEY-----\n{CANARY}\n-----END OPENSSH PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{CANARY}",
        f"Authorization: Bearer {CANARY}",
        f"postgresql://user:{CANARY}@db/x",
        f"smt_{CANARY}",
        f"--password={CANARY}",
        f"PASSWORD: {CANARY}",
        f"pa\u017f\u017fword: {CANARY}",
        f"BASIC {CANARY}",
        f"eyJ{CANARY}.{CANARY}.{CANARY}",
    ],
)
def test_a_secret_in_text_is_masked(text: str) -> None:
    assert CANARY not in redact_text(text)


def test_a_secret_name_masks_its_value_and_nothing_else() -> None:
    value = {"password": CANARY, "name": "web01", "nested": [{"api_key": CANARY}], "token_count": 3}

    assert redact(value) == {"password": MASK, "name": "web01", "nested": [{"api_key": MASK}], "token_count": 3}


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_log_line_holds_a_secret_or_starts_a_new_line(log_format: str) -> None:
    stream = io.StringIO()
    set_up_logs(log_format, "INFO", stream)
    token = request_context.set(RequestContext("req-7", "api"))
    try:
        logger("test").info("thing_done", password=CANARY, text=f"smt_{CANARY}", name="a\nFAKE line\x1b[31m")
        logging.getLogger("library").warning("connecting to postgresql://u:%s@h/d", CANARY)
    finally:
        request_context.reset(token)

    written = stream.getvalue()
    assert CANARY not in written
    assert "req-7" in written
    assert "\x1b[31m" not in written
    assert len(written.splitlines()) == 2


def test_an_exception_is_logged_without_its_secrets() -> None:
    stream = io.StringIO()
    set_up_logs("json", "INFO", stream)
    error = RuntimeError(f"cannot open postgresql://u:{CANARY}@h/d")
    logger("test").error("failed", exc_info=error)

    line = json.loads(stream.getvalue())
    assert CANARY not in line["exception"]
    assert "RuntimeError" in line["exception"]
