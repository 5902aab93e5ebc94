"""What is written to the log."""

import io

import pytest
import structlog

from server_monitor.telemetry.logs import set_up_logs


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_shows_where_and_not_what_the_variables_held(log_format: str) -> None:
    stream = io.StringIO()
    set_up_logs(log_format, "INFO", stream)

    held = "-".join(("only", "a", "variable", "holds", "this"))  # put together, so that no line of the source shows it

    def fail(secret: str) -> None:
        raise RuntimeError("postgresql://ada:" + "-".join(["hunter2"] * 2) + "@db/x is gone")

    try:
        fail(held)
    except RuntimeError:
        structlog.get_logger("tests").exception("it_failed")

    written = stream.getvalue()
    assert "it_failed" in written
    assert "in fail" in written
    assert "RuntimeError" in written
    assert held not in written
    assert "hunter2-hunter2" not in written
