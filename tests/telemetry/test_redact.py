"""Secrets do not reach a log line or a record, whatever they are wrapped in."""

import io
import json
import logging
import sys
from pathlib import Path

import pytest

from server_monitor.telemetry.logs import RequestContext, logger, request_context, set_up_logs
from server_monitor.telemetry.redact import MASK, redact, redact_text

HERE = Path(__file__).parent
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


def commands(name: str) -> list[str]:
    """One a line; a line break in a command is written as \\n."""
    return [line.replace("\\n", "\n") for line in (HERE / name).read_text().splitlines()]


@pytest.mark.parametrize("command", commands("commands_with_secrets.txt"))
def test_a_secret_in_a_command_is_masked_wherever_it_stands(command: str) -> None:
    assert "hunter22x" in command
    masked = redact_text(command)

    assert "hunter22x" not in masked
    assert redact_text(masked) == masked


@pytest.mark.parametrize("command", commands("commands_without_secrets.txt"))
def test_an_everyday_command_stays_as_it_is(command: str) -> None:
    assert redact_text(command) == command


@pytest.mark.parametrize(
    ("command", "masked"),
    [
        ("sudo mysql -uroot -pX1 -e 'select 1'", f"sudo mysql -uroot -p{MASK} -e 'select 1'"),
        ("sshpass -p X1 ssh -p 22 host uptime", f"sshpass -p {MASK} ssh -p 22 host uptime"),
        ("curl -sSu bob:X1 http://x/", f"curl -sSu bob:{MASK} http://x/"),
        ("PASSWORD='a X1' true; rm -rf /srv", f"PASSWORD={MASK} true; rm -rf /srv"),
        ("TOKEN=X1;rm -rf /srv", f"TOKEN={MASK};rm -rf /srv"),
        ("TOKEN=$(rm -rf /srv) true", "TOKEN=$(rm -rf /srv) true"),
        ("git clone https://bob:X1@host/a.git", f"git clone https://bob:{MASK}@host/a.git"),
        ('curl -H "Authorization: Bearer X1" http://x', f'curl -H "Authorization: Bearer {MASK}" http://x'),
        ("echo root:X1 | chpasswd", f"echo root:{MASK} | chpasswd"),
    ],
)
def test_what_is_no_secret_can_still_be_read(command: str, masked: str) -> None:
    """A record has to say what was run, so nothing can be hidden by calling it a password."""
    assert redact_text(command) == masked


@pytest.mark.parametrize(
    "shape",
    [
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_0123456789abcdefghijklmnopqrstuvwxyz",
        "glpat-0123456789abcdefghij",
        "xoxb-0123456789-abcdefghij",
        "AIza0123456789abcdefghijklmnopqrstuvwxyz_",
        "sk_live_0123456789abcdefghij",
        "hvs.0123456789abcdefghijklmn",
        "SG.0123456789abcdefgh.0123456789abcdefgh",
    ],
)
def test_a_key_is_known_by_its_look(shape: str) -> None:
    assert redact_text(f"deploy {shape} now") == f"deploy {MASK} now"
    assert redact_text(shape) == MASK


HOSTILE = [
    *(
        "'",
        '"',
        "\\",
        '\\"',
        "\"'",
        "://",
        "-eyJ",
        "-SG.",
        "-----BEGIN ",
        '"a":',
        '\\"password\\":\\"',
        "password: ",
        "a=,",
    ),
    *("mysql -p", "docker -p ", "htpasswd -b ", "redis-cli auth ", "identified by '", "$(", "\n- a: b", "'\"a b\"' "),
]


@pytest.mark.parametrize("unit", HOSTILE)
def test_the_work_grows_with_the_text_and_not_with_its_square(unit: str) -> None:
    """Counted and not timed: a walk that starts over for each of its words would call more."""

    def calls(size: int) -> int:
        count = 0

        def note(_frame: object, _event: str, _argument: object) -> None:
            nonlocal count
            count += 1

        sys.setprofile(note)
        try:
            redact_text(("password=x ssh " + unit * size)[:size])
        finally:
            sys.setprofile(None)
        return count

    calls(2_000)  # What is looked up only once is not counted.
    assert calls(8_000) < 5 * calls(2_000) + 1_000


def test_a_value_is_masked_when_a_parameter_of_a_snippet_is_named_like_a_secret() -> None:
    value = [{"name": "db_password", "default": CANARY}, {"name": "unit", "default": "nginx"}]

    assert redact(value) == [{"name": "db_password", "default": MASK}, {"name": "unit", "default": "nginx"}]


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
