"""asciinema's own player plays what is exported."""

import json
from pathlib import Path

import pytest
from playwright.async_api import Browser

from server_monitor.db.ids import new_id
from server_monitor.terminal import casting, recording
from tests.support.recordings import KEYRING, begun, settled

PLAYER = Path(__file__).parents[2] / "web" / "node_modules" / "asciinema-player" / "dist" / "bundle"
SCREEN = "[...document.querySelectorAll('.ap-line')].map((line) => line.textContent).join('\\n')"

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("form", ["v2", "v3"])
async def test_an_export_plays_to_its_end(chromium: Browser, tmp_path: Path, form: str) -> None:
    """Colours, a cut character, bytes that are no text, a resize, a full-screen program and its end."""
    if not (PLAYER / "asciinema-player.min.js").exists():
        pytest.skip("The UI's packages are not installed: make web")
    cast = await _recorded(tmp_path, form)
    page = await chromium.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.set_content("<div id=player></div>")
    await page.add_style_tag(path=PLAYER / "asciinema-player.css")
    await page.add_script_tag(path=PLAYER / "asciinema-player.min.js")
    await page.evaluate(
        """async (data) => {
            const player = AsciinemaPlayer.create({data}, document.getElementById("player"),
                                                  {autoPlay: true, speed: 50, terminalFontFamily: "monospace"});
            window.over = new Promise((resolve) => player.addEventListener("ended", resolve));
            await window.over;
            window.duration = await player.getDuration();
        }""",
        cast,
    )
    shown = await page.evaluate(SCREEN)
    assert "$ ls é€ \N{REPLACEMENT CHARACTER}" in shown
    assert "after the program" in shown
    assert "inside" not in shown
    assert await page.evaluate("window.duration") > 0
    assert complaints == []


async def _recorded(directory: Path, form: str) -> str:
    session_id = new_id()
    path = directory / f"{session_id}.rec"
    recorder = await begun(path, session_id)
    for output in (b"$ \x1b[1;32mls\x1b[0m \xc3", b"\xa9\xe2\x82", b"\xac \xff\r\n"):
        recorder.output(output)
        await settled(recorder)
    recorder.resized(60, 10)
    recorder.output(b"\x1b[?1049h\x1b[2J\x1b[3;3Hinside")
    recorder.mark("no-echo")
    recorder.output(b"\x1b[?1049lafter the program\r\n")
    await recorder.end(0)
    opening = recording.opening_of(path, KEYRING, session_id)
    events = recording.events(path, KEYRING, session_id)
    text = b"".join(casting.exported(form, opening, events)).decode()
    assert all(json.loads(line) for line in text.split("\n") if line)
    return text
