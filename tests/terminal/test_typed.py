"""The guard rail with a real bash: an Enter is held only when the policy objects to a line that is known."""

import asyncio

import pytest

from server_monitor.auth.actor import Role
from server_monitor.terminal.typed import Objection, Typing
from tests.support.patience import until
from tests.support.terminals import Screen, TerminalConsole

pytestmark = pytest.mark.sshd
DANGER = "echo dan''ger"


@pytest.fixture
async def screen(terminals: TerminalConsole):
    terminals.objections[DANGER] = Objection("fs.rm", "It deletes everything.")
    person, server = await terminals.person(Role.OPERATOR), await terminals.host()
    async with terminals.screen(person, server) as screen:
        yield screen


async def asked(screen: Screen, line: str = DANGER) -> None:
    """Press Enter behind this line, once it is on the screen: an echo is waited for only so long."""
    at = len(screen.shown)
    await screen.type(line)
    await screen.until(line.encode(), since=at)
    await screen.type("\r")
    question = await screen.frame("guard")
    assert question == {"type": "guard", "line": DANGER, "rule": "fs.rm", "sentence": "It deletes everything."}
    assert b"\rdanger" not in screen.shown


async def test_a_dangerous_line_is_sent_once_the_person_says_so(screen: Screen):
    await asked(screen)

    await screen.send(type="continue")
    await screen.until(b"\rdanger")


async def test_a_dangerous_line_that_is_dropped_stays_at_the_prompt(screen: Screen):
    await asked(screen)
    await screen.send(type="drop")
    await screen.type("\x15")

    assert b"fine" in await screen.run("echo fi''ne")
    assert b"\rdanger" not in screen.shown


async def test_ctrl_c_is_an_answer_too(screen: Screen):
    await asked(screen)
    await screen.type(b"\x03")
    await screen.until(b"^C")

    assert b"fine" in await screen.run("echo fi''ne")
    assert b"\rdanger" not in screen.shown


async def test_it_is_asked_again_for_the_same_line(screen: Screen):
    await asked(screen)
    await screen.send(type="drop")
    await asked(screen, "")


async def test_typing_key_by_key_and_rubbing_out_are_followed(screen: Screen):
    for key in "echo dan''gee":
        await screen.type(key)
    await screen.until(b"echo dan''gee")
    await screen.type("\x7f")
    await asked(screen, "r")


async def test_lines_that_the_policy_lets_pass_are_not_held(terminals: TerminalConsole, screen: Screen):
    await screen.type("echo qui''ck")
    await screen.until(b"echo qui''ck")
    await screen.type("\r")
    await screen.until(b"\rquick")
    assert any("qui''ck" in line for line in terminals.judged)
    assert not any(frame["type"] == "guard" for frame in screen.frames)


async def test_a_password_is_neither_judged_nor_kept_and_leaves_a_mark(terminals: TerminalConsole, screen: Screen):
    await screen.type("stty -echo; echo rea''dy; read -r word; stty echo; echo got ${#word}\r")
    await screen.until(b"ready")
    await screen.type("hunter2\r")
    await screen.until(b"got 7")
    await screen.send(type="close")
    await terminals.over(screen.session_id)

    assert not any("hunter2" in line for line in terminals.judged)
    assert b"no-echo" in terminals.marks(screen.session_id)
    assert b"hunter2" not in terminals.recorded(screen.session_id)


async def test_a_line_from_the_history_is_not_known_and_not_held(terminals: TerminalConsole, screen: Screen):
    await asked(screen)
    await screen.send(type="continue")
    await screen.until(b"\rdanger")
    at = len(screen.shown)
    await screen.type("\x1b[A")
    await screen.until(DANGER.encode(), since=at)
    await screen.type("\r")
    await screen.until(b"\rdanger", since=at)


async def test_a_browser_that_goes_away_with_a_question_open_drops_the_line(terminals: TerminalConsole, screen: Screen):
    await asked(screen)
    await screen.cut()
    bridge = terminals.desk.bridge(screen.session_id)
    assert bridge is not None
    await until(lambda: not bridge.is_held)
    assert b"\rdanger" not in screen.shown


class Wire:
    """A shell that only keeps what it was sent."""

    exit_status = exit_signal = on_writable = None
    unsent_bytes = 0

    def __init__(self) -> None:
        self.sent = bytearray()

    def write(self, data: bytes) -> None:
        self.sent += data


async def test_an_enter_that_overtakes_its_echo_waits_for_it():
    judged: list[str] = []

    async def object_to(line: str) -> None:
        judged.append(line)

    shell = Wire()
    typing = Typing(object_to, lambda _: True, lambda _: None)
    typing.open(shell)
    running = asyncio.create_task(typing.run())
    try:
        typing.typed(b"ls\r")
        assert shell.sent == b"ls"
        typing.shown(b"ls")
        await until(lambda: shell.sent == b"ls\r")
    finally:
        running.cancel()
    assert judged == ["ls"]
