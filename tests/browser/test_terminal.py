"""Terminals in a real browser: shells on real hosts, what their output may do, and what is recorded of them."""

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Literal

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Route, StorageState, expect

from tests.browser.terminals import Network, open_first, paste, run, screen, set_up, tab_to, to_server, wait_for_prompt
from tests.browser.visitor import Fleet, Visitor, fleet_of, launched, visiting
from tests.support.console import PASSWORD, ConsoleProcess
from tests.support.recordings import contents, write
from tests.support.sshd import Sshds, require_sshd

# The browser, the console and its hosts are the same for all tests, and so is the loop that they belong to.
pytestmark = [
    pytest.mark.browser,
    pytest.mark.sshd,
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="module"),
]

RECORDING = re.compile(r"/recordings/[0-9a-f-]{36}")
# What no policy allows, and what would do nothing anywhere: there is no such device.
DENIED = "mkfs.ext4 /dev/no-such-device-DENY"
# Asks a terminal for answers, renames its window, writes the clipboard, and names colours that hide what is printed.
HOSTILE = (
    b"\x1b[c\x1b[>c\x1b[5n\x1b[6n\x1b[?6n\x1b[21t\x1b[18t\x1b[?2004$p\x1bP$qm\x1b\\\x1bP+q544e\x1b\\\x05"
    b"\x1b]0;owned\x07\x1b]2;owned\x1b\\\x1b]52;c;b3duZWQ=\x07\x1b]52;c;?\x07\x1b]4;1;?\x07\x1b]10;?\x07\x1b]11;?\x07"
    b"\x1b]10;#ffffff\x07\x1b]11;#ffffff\x07\x1b[?1004h\x1b]9;owned\x07\x1b]1337;SetUserVar=a=b3duZWQ=\x07"
    b"\x1b]8;;javascript:alert(1)\x1b\\script\x1b]8;;\x1b\\<img src=x onerror=alert(1)>\n"
)


async def add_user(console: ConsoleProcess, name: str, role: str) -> None:
    added = await console.run("user", "add", name, "--role", role, "--password-stdin", stdin=PASSWORD.encode())
    assert added[0] == 0, added


async def log_in(page: Page, url: str, name: str) -> None:
    await page.goto(url)
    await page.get_by_label("User name").fill(name)
    await page.get_by_label("Password", exact=True).fill(PASSWORD)
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("button", name=f"Account of {name}")).to_be_visible()


@pytest.fixture(scope="module")
def module_sshds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshds]:
    require_sshd()
    started = Sshds(tmp_path_factory.mktemp("hosts"))
    try:
        yield started
    finally:
        started.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    async with launched() as browser:
        yield browser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory, module_sshds: Sshds) -> AsyncIterator[Fleet]:
    """One for all tests: their sessions are left behind in the list, older than that of the test."""
    settings, options = {"TERMINAL_SESSIONS_PER_USER": "1000"}, {"Subsystem": "sftp internal-sftp"}
    async with fleet_of(tmp_path_factory.mktemp("console"), module_sshds, settings, options) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def logged_in(fleet: Fleet) -> StorageState:
    """What a browser keeps of an admin's login. `web-1` takes terminals."""
    return await set_up(fleet, "terminal")


@pytest_asyncio.fixture(loop_scope="module")
async def visitor(chromium: Browser, fleet: Fleet, logged_in: StorageState) -> AsyncIterator[Visitor]:
    """The admin, at the fleet, in a browser that has never been used."""
    async with visiting(chromium, logged_in) as one:
        await one.page.goto(fleet.console.url)
        yield one


@pytest_asyncio.fixture(loop_scope="module")
async def another(chromium: Browser) -> AsyncIterator[Visitor]:
    """Somebody else, at a browser of their own."""
    async with visiting(chromium) as one:
        yield one


async def test_a_shell_in_the_browser(visitor: Visitor, tmp_path: Path) -> None:
    """It opens, edits a file in vim, follows the window's size, ends, and opens again."""
    page, note = visitor.page, tmp_path / "note"
    await open_first(visitor)
    await expect(page.get_by_text(re.compile("^Recorded"))).to_be_visible()
    await run(page, r"printf 'rea''dy \346\227\245\346\234\254\n'")
    await expect(screen(page)).to_contain_text("ready 日本")

    await run(page, f"vim -u NONE {note}")
    await expect(screen(page)).to_contain_text("~")
    await page.keyboard.type("ione line")
    await page.keyboard.press("Escape")
    await run(page, ":wq")
    await wait_for_prompt(page)
    assert note.read_text() == "one line\n"

    await run(page, "clear; size=$(stty size); echo $size bef''ore")
    await expect(screen(page)).to_contain_text("before")
    before = re.findall(r"\b(\d+) (\d+) before", await screen(page).inner_text())[-1]
    await page.set_viewport_size({"width": 800, "height": 500})
    await run(page, 'clear; while [ "$(stty size)" = "$size" ]; do sleep 0.1; done; echo $(stty size) aft\'\'er')
    await expect(screen(page)).to_contain_text("after")
    after = re.findall(r"\b(\d+) (\d+) after", await screen(page).inner_text())[-1]
    assert int(after[0]) < int(before[0])
    assert int(after[1]) < int(before[1])

    await run(page, "exit 3")
    await expect(page.get_by_text("The shell has ended with exit status 3.")).to_be_visible()
    await expect(page.get_by_text("Not running")).to_be_visible()
    again = page.get_by_role("button", name="Open again")
    await expect(again).to_be_focused()
    await page.locator("section.current textarea").focus()
    await page.keyboard.press("Tab")
    await expect(page.locator("section.current textarea")).not_to_be_focused()
    await again.click()
    await wait_for_prompt(page)


async def test_a_network_that_breaks(fleet: Fleet, visitor: Visitor) -> None:
    """The shell goes on; what is typed meanwhile is not sent; what was printed is there afterwards, once."""
    page = visitor.page
    async with Network(fleet.console.url) as network:
        await page.goto(network.url)
        await open_first(visitor)
        await run(page, "marker=kept; cd /tmp; for i in 1 2 3; do sleep 1; echo tick-$i; done; echo all-''ticks")
        await expect(screen(page)).to_contain_text("tick-1")
        network.cut()
        await expect(page.get_by_text("The connection is gone.")).to_be_visible()
        await page.keyboard.type("lost")
        network.mend()
        await expect(page.get_by_text("The connection is gone.")).to_be_hidden()
        await expect(screen(page)).to_contain_text("all-ticks")
        await run(page, "echo $marker $PWD")
        await expect(screen(page)).to_contain_text("kept /tmp")
        shown = await screen(page).inner_text()
        assert shown.count("\ntick-2") == 1
        assert "lost" not in shown


async def test_a_part_of_the_page_that_comes_too_late(fleet: Fleet, visitor: Visitor) -> None:
    """Without the console the page stays as it is and says what is missing, which comes as soon as it can."""
    page = visitor.page
    async with Network(fleet.console.url) as network:
        await page.goto(network.url)
        await open_first(visitor)
        await run(page, "marker=kept")
        await page.locator("a.home").click()
        await expect(page.get_by_role("link", name="Settings")).to_be_visible()
        await page.evaluate("window.never_left = true")
        network.cut()
        await page.keyboard.press("?")
        await expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("could not be loaded")
        await page.keyboard.press("Escape")
        await page.get_by_role("link", name="Settings").click()
        note = page.get_by_role("alert").filter(has_text="could not be loaded")
        await expect(note.get_by_role("button", name="Try again")).to_be_visible()

        network.mend()
        await expect(page.get_by_role("heading", name="Settings")).to_be_visible()
        await page.keyboard.press("?")
        await expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
        await page.keyboard.press("Escape")
        await page.get_by_role("link", name="Open terminals").click()
        await expect(page.locator("section.current textarea")).to_be_focused()
        await expect(page.get_by_text("The connection is gone.")).to_be_hidden()
        await run(page, "echo $marker it-''is")
        await expect(screen(page)).to_contain_text("kept it-is")
        assert await page.evaluate("window.never_left")


async def test_a_page_of_an_earlier_build_begins_again(visitor: Visitor) -> None:
    """The console has what it asks for under another name."""
    page = visitor.page
    await page.evaluate("window.never_left = true")

    missing = "**/assets/Settings-*.js"

    async def gone(route: Route) -> None:
        await route.fulfill(status=404)

    async def upgraded(route: Route) -> None:
        if route.request.resource_type == "document":
            await route.continue_()
        else:
            await page.unroute(missing)
            await route.fulfill(body='<script src="/assets/index-other.js"></script>')

    await page.route(missing, gone)
    await page.route(re.compile(r":\d+/$"), upgraded)
    await page.get_by_role("link", name="Settings").click()
    await page.wait_for_function("() => !window.never_left")
    await expect(page.get_by_role("heading", name="Settings")).to_be_visible()


async def test_a_page_that_is_loaded_anew(visitor: Visitor) -> None:
    """Its shells are there again, with what they had shown."""
    page = visitor.page
    page.on("dialog", lambda dialog: dialog.accept())
    await open_first(visitor)
    await run(page, "marker=kept; echo before-''that")
    await expect(screen(page)).to_contain_text("before-that")
    await page.reload()
    await expect(screen(page)).to_contain_text("before-that")
    await run(page, "echo $marker-''too")
    await expect(screen(page)).to_contain_text("kept-too")


async def test_what_is_pasted(visitor: Visitor) -> None:
    """One line goes in at once; several are shown first, without what would act as keys; Enter cancels."""
    page = visitor.page
    await open_first(visitor)
    await paste(page, "echo one-''line")
    await expect(screen(page)).to_contain_text("echo one-''line")
    await page.keyboard.press("Enter")
    await expect(screen(page)).to_contain_text("\none-line", use_inner_text=True)

    await paste(page, "echo first-''line\necho second-''line\x1b[201~\n")
    dialog = page.get_by_role("dialog", name="Paste 2 lines?")
    await expect(dialog).to_contain_text("1 control character was taken out")
    await page.keyboard.press("Enter")
    await expect(dialog).to_be_hidden()
    await run(page, "echo then-''this")
    await expect(screen(page)).to_contain_text("then-this")
    await expect(screen(page)).not_to_contain_text("first-")

    await paste(page, "echo first-''line\necho second-''line\n")
    await dialog.get_by_role("button", name="Paste without the last Enter").click()
    await expect(screen(page)).to_contain_text("second-''line")
    await expect(screen(page)).not_to_contain_text("second-line")
    await page.keyboard.press("Enter")
    await expect(screen(page)).to_contain_text("second-line")


async def test_output_only_draws(visitor: Visitor, tmp_path: Path) -> None:
    """A hostile file that is shown types nothing into the shell, renames nothing, and makes nothing of the page."""
    page, file = visitor.page, tmp_path / "hostile"
    file.write_bytes(HOSTILE)
    await open_first(visitor)
    await run(page, f'cat {file}; IFS= read -rs -t 1 -n 1 x; echo "typed:[$x]"')
    await expect(screen(page)).to_contain_text("typed:[]")
    await expect(screen(page)).to_contain_text("script<img src=x onerror=alert(1)>")
    assert "owned" not in await page.title()
    assert await screen(page).locator("img").count() == 0
    # The focus goes and comes: a program that asked to be told of it is not.
    await page.keyboard.press("Control+Shift+Enter")
    await expect(page.locator("header button:focus")).to_be_visible()
    await page.locator("section.current .xterm").click()
    await run(page, 'IFS= read -rs -t 1 -n 1 x; echo "again:[$x]"')
    await expect(screen(page)).to_contain_text("again:[]")


async def test_a_dangerous_line_asks(visitor: Visitor) -> None:
    """What the policy would deny is not sent by an Enter pressed once too often."""
    page = visitor.page
    await open_first(visitor)
    await run(page, "echo warm''ed")  # So that the policy has been asked once, which is slower than ever after.
    await expect(screen(page)).to_contain_text("warmed")
    await page.keyboard.type(DENIED)
    await expect(screen(page)).to_contain_text(DENIED)  # An Enter waits only so long for the echo before it.
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="This may be dangerous. Send it?")
    await expect(dialog).to_contain_text(DENIED)
    await expect(dialog.get_by_role("button", name="Do not send")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(dialog).to_be_hidden()
    await page.keyboard.press("Control+u")
    await run(page, "echo went-''on")
    await expect(screen(page)).to_contain_text("went-on")
    await expect(screen(page)).not_to_contain_text("No such file or directory")


async def test_only_the_keyboard(fleet: Fleet, visitor: Visitor) -> None:
    """From the palette into a shell, out of it again, beside it another, and back to the fleet."""
    page = visitor.page
    await open_first(visitor)
    await page.keyboard.press("Control+Shift+Enter")
    await expect(page.locator("header button:focus")).to_be_visible()
    await page.keyboard.press("Control+k")
    await expect(page.get_by_role("combobox")).to_be_focused()
    await page.keyboard.type("terminal on web-1")
    await expect(page.get_by_role("option", name="Open a terminal on web-1")).to_be_visible()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("navigation", name="Open terminals").get_by_role("button")).to_have_count(2)
    await wait_for_prompt(page)
    await page.keyboard.press("Control+Shift+D")
    await expect(page.get_by_role("region", name="Terminal on web-1")).to_have_count(2)
    await wait_for_prompt(page)
    await run(page, "echo sec''ond")
    await expect(screen(page)).to_contain_text("second")
    await page.keyboard.press("Control+Shift+ArrowUp")
    await run(page, "echo fir''st")
    await expect(screen(page)).to_contain_text("first")
    await page.keyboard.press("Control+Shift+F")
    await page.keyboard.type("first")
    await expect(page.get_by_role("status").filter(has_text=re.compile("of|found"))).to_be_visible()
    await page.keyboard.press("Escape")
    await page.keyboard.press("Control+Shift+ArrowLeft")
    await expect(page.get_by_role("region", name="Terminal on web-1")).to_have_count(1)
    await page.keyboard.press("Control+Shift+Enter")
    await page.keyboard.press("Control+k")
    await expect(page.get_by_role("combobox")).to_be_focused()
    await page.keyboard.type("go to the fleet")
    await page.keyboard.press("Enter")
    await expect(visitor.row("web-1")).to_be_visible()
    await expect(page.get_by_role("link", name="Open terminals: 3")).to_be_visible()


async def test_the_first_terminal_of_a_console(tmp_path: Path, module_sshds: Sshds, chromium: Browser) -> None:
    """Where there is none the page says why, and how it could be; where a reason is asked for none opens without."""
    async with (
        fleet_of(tmp_path, module_sshds, {"TERMINAL_REASON_REQUIRED": "true"}) as fleet,
        visiting(chromium, await set_up(fleet)) as visitor,
    ):
        page, url = visitor.page, fleet.console.url
        await page.goto(f"{url}/terminal")
        await expect(page.get_by_text("No server takes terminals yet")).to_be_visible()
        await page.goto(url)
        own = await visitor.row("this machine").get_by_role("link").get_attribute("href")
        assert own is not None
        await page.goto(f"{url}/terminal?server={own.rpartition('/')[2]}")
        await expect(page.get_by_text("Its account can read the keys of every other server")).to_be_visible()
        await page.goto(url)
        await to_server(visitor)
        await page.get_by_role("link", name="Open terminal").click()
        await expect(page.get_by_text("web-1 is at capability “observe”.")).to_be_visible()

        await page.get_by_role("button", name="Allow terminals").click()
        dialog = page.get_by_role("dialog", name="Why do you open a terminal on web-1?")
        await dialog.get_by_role("button", name="Open terminal").click()
        await expect(dialog.get_by_text("Fill this in.")).to_be_visible()
        await dialog.get_by_label("Reason or ticket number").fill("INC-4711")
        await page.keyboard.press("Enter")
        await wait_for_prompt(page)
        await run(page, "exit")
        await page.get_by_role("link", name="Watch the recording").click()
        await expect(page.get_by_label("About this session")).to_contain_text("INC-4711")


async def test_an_auditor_finds_the_second(fleet: Fleet, visitor: Visitor, another: Visitor) -> None:
    """What somebody saw is found in all recordings, and the replay shows it as it was; a verdict says it is whole."""
    page, console = visitor.page, fleet.console
    await open_first(visitor)
    await run(page, "echo early; sleep 1; echo needle-''in-it; sleep 1; clear; echo la''te; exit")
    await expect(page.get_by_text("The shell has ended.")).to_be_visible()
    await add_user(console, "grace", "auditor")

    audits = another.page
    await log_in(audits, console.url, "grace")
    await audits.get_by_role("link", name="Terminals").click()
    await expect(audits.get_by_role("row").filter(has_text="ada").first).to_contain_text("Ended")
    await audits.get_by_label("Search what was shown").fill("needle-in")
    await audits.keyboard.press("Enter")
    await audits.get_by_role("link").filter(has_text="needle-in-it").click()
    await expect(audits).to_have_url(RECORDING)
    played = audits.get_by_role("region", name="The recording")
    await expect(played.locator(".xterm-rows")).to_contain_text("needle-in-it")
    await expect(played.locator(".xterm-rows")).not_to_contain_text("late")
    await expect(played.get_by_role("list").get_by_role("button").first).to_contain_text("needle-in-it")

    await played.get_by_role("slider", name="Position").focus()
    await audits.keyboard.press("End")
    await expect(played.locator(".xterm-rows")).to_contain_text("late")
    await played.get_by_label("Find in the recording").fill("early")
    await played.get_by_role("button", name="Next hit").click()
    await expect(played.locator(".xterm-rows")).not_to_contain_text("late")
    await audits.get_by_role("button", name="Verify").click()
    await expect(audits.get_by_text("Whole, and as the audit log says")).to_be_visible()

    await audits.get_by_role("button", name="Download").click()
    async with audits.expect_download() as started:
        await audits.get_by_role("link", name="asciicast v2").click()
    header = (await (await started.value).path()).read_text().splitlines()[0]
    assert '"version":2' in header.replace(" ", "")
    await audits.goto(f"{console.url}/terminal")
    await expect(audits.get_by_text("Your role opens no terminals.")).to_be_visible()


async def test_the_keyboard_goes_through_a_replay(visitor: Visitor) -> None:
    """Nothing is typed into its screen, so Tab leads past it, and Shift and Tab back."""
    page = visitor.page
    await open_first(visitor)
    await run(page, "exit")
    await page.get_by_role("link", name="Watch the recording").click()
    played = page.get_by_role("region", name="The recording")
    drawn, play = played.locator(".xterm textarea"), played.get_by_role("button", name="Play")
    await expect(play).to_be_visible()
    await page.reload()
    await expect(play).to_be_visible()

    await tab_to(page, drawn)
    await tab_to(page, play)
    await tab_to(page, played.get_by_label("Find in the recording"))
    await tab_to(page, drawn, "Shift+Tab")
    await tab_to(page, page.get_by_role("link", name="Terminals", exact=True).first, "Shift+Tab")


async def test_a_session_whose_end_is_written_is_ending(visitor: Visitor) -> None:
    """It neither runs nor has ended: nobody watches it any more, nor ends it."""
    page = visitor.page
    await open_first(visitor)

    async def ending(route: Route) -> None:
        answer = await route.fetch()
        told = await answer.json()
        for one in told.get("items", [told]):
            one["is_ending"] = one["status"] == "active"
        await route.fulfill(response=answer, json=told)

    await page.route(re.compile(r"/api/terminal/sessions(\?|/[0-9a-f-]{36}$)"), ending)
    await page.locator("a.home").click()
    await page.get_by_role("link", name="Terminals", exact=True).click()
    row = page.get_by_role("row").filter(has_text="Ending").first
    await expect(row).to_be_visible()
    await expect(row).not_to_contain_text("Being written")
    await row.get_by_role("link").click()
    await expect(page.get_by_text("Ending", exact=True)).to_be_visible()
    await expect(page.get_by_text("Being written")).to_have_count(0)
    await expect(page.get_by_role("button", name="Watch live")).to_have_count(0)
    await expect(page.get_by_role("button", name="End the session")).to_have_count(0)
    # The page asks again and again; what it asks now has to be answered before it goes away.
    await page.unroute_all(behavior="wait")


async def test_a_wide_terminal_is_replayed_on_a_phone(visitor: Visitor) -> None:
    """Its letters can be read, the keyboard and a finger reach what does not fit, and it has its own size if wanted."""
    page = visitor.page
    await open_first(visitor)
    await run(page, "exit")
    await expect(page.get_by_text("The shell has ended.")).to_be_visible()
    await page.get_by_role("link", name="Watch the recording").click()
    played = page.get_by_role("region", name="The recording")
    await expect(played.get_by_role("slider", name="Position")).to_be_visible()
    await page.set_viewport_size({"width": 360, "height": 740})
    await expect(played.get_by_label("Actual size")).to_be_visible()
    letters_px = """(rows) => {
      const scale = new DOMMatrix(getComputedStyle(rows.closest('.xterm')).transform).a;
      return scale * parseFloat(getComputedStyle(rows).fontSize);
    }"""
    assert await played.locator(".xterm-rows").evaluate(letters_px) >= 8.99
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    frame = played.get_by_role("group", name="The screen that was recorded")
    await frame.focus()
    await page.keyboard.press("ArrowRight")
    await page.wait_for_function("() => document.activeElement.scrollLeft > 0")
    await frame.evaluate("(it) => (it.scrollLeft = 0)")
    box = await frame.bounding_box()
    assert box is not None
    finger = {"x": box["x"] + 200, "y": box["y"] + 60, "xDistance": -120, "gestureSourceType": "touch"}
    await (await page.context.new_cdp_session(page)).send("Input.synthesizeScrollGesture", finger)
    await page.wait_for_function("() => document.activeElement.scrollLeft > 0")
    assert await visitor.accessibility_findings() == []

    small_px = await played.locator(".xterm-rows").evaluate(letters_px)
    await played.get_by_label("Actual size").check()
    assert await played.locator(".xterm-rows").evaluate(letters_px) > small_px


async def test_an_alarm_leads_to_the_recordings_that_it_is_about(fleet: Fleet, visitor: Visitor) -> None:
    page = visitor.page
    await open_first(visitor)
    await run(page, "exit")
    await page.get_by_role("link", name="Watch the recording").click()
    await expect(page).to_have_url(RECORDING)
    await page.get_by_role("button", name="Verify").click()
    await expect(page.get_by_text("Whole, and as the audit log says")).to_be_visible()
    name = page.url.split("?")[0].rpartition("/")[2]
    (file,) = fleet.console.data_dir.glob(f"recordings/*/{name}.rec")
    write(file, contents(file)[:-1] + b"\0")
    await page.get_by_role("button", name="Verify").click()
    await expect(page.get_by_text("Damaged: it differs from what the audit log says")).to_be_visible()

    await page.goto(f"{fleet.console.url}/recordings")
    alarm = page.get_by_role("alert").filter(has_text="A recording is damaged or missing.")
    await alarm.get_by_role("link", name="Show").click()
    await expect(page.get_by_label("Recording")).to_have_value("damaged,missing")
    rows = page.get_by_role("row").filter(has=page.get_by_role("link"))
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text("Damaged")
    await expect(alarm.get_by_role("link")).to_have_count(0)
    assert await visitor.accessibility_findings() == []


async def test_a_recording_without_its_end_raises_the_alarm_where_it_is_watched(fleet: Fleet, visitor: Visitor) -> None:
    page = visitor.page
    await open_first(visitor)
    await run(page, "echo all of it; exit")
    await page.get_by_role("link", name="Watch the recording").click()
    await expect(page).to_have_url(RECORDING)
    await page.get_by_role("button", name="Verify").click()
    await expect(page.get_by_text("Whole, and as the audit log says")).to_be_visible()
    name = page.url.split("?")[0].rpartition("/")[2]
    (file,) = fleet.console.data_dir.glob(f"recordings/*/{name}.rec")
    write(file, contents(file)[:-1])

    await page.reload()
    await expect(page.get_by_role("alert").filter(has_text="This recording is damaged or missing")).to_be_visible()


async def test_another_window_tells_what_is_in_use_from_what_waits(fleet: Fleet, visitor: Visitor) -> None:
    page = visitor.page
    await open_first(visitor)
    await run(page, "echo he''re")
    await expect(screen(page)).to_contain_text("here")
    other = await page.context.new_page()
    await other.goto(f"{fleet.console.url}/terminal")
    in_use = other.locator("section").filter(has=other.get_by_role("heading", name="Open in another window"))
    await expect(in_use).to_contain_text("The other window stops when you go on here.")
    await in_use.get_by_role("button").first.click()
    await expect(screen(other)).to_contain_text("here")
    await expect(page.get_by_text("You have gone on with this session in another window.")).to_be_visible()


async def test_somebody_looks_on_and_ends_it(fleet: Fleet, visitor: Visitor, another: Visitor) -> None:
    """An admin sees a session as it goes on; its user is told of both."""
    page, console = visitor.page, fleet.console
    await open_first(visitor)
    await add_user(console, "linus", "admin")
    looks_on = another.page
    await log_in(looks_on, console.url, "linus")
    await looks_on.get_by_role("link", name="Terminals").click()
    await looks_on.get_by_role("row").filter(has_text="Running").first.get_by_role("link").click()
    await looks_on.get_by_role("button", name="Watch live").click()
    await expect(page.get_by_text("linus watches")).to_be_visible()
    await run(page, "echo see-''this")
    await expect(looks_on.locator(".xterm-rows")).to_contain_text("see-this")

    await looks_on.get_by_role("button", name="End the session…").click()
    await looks_on.get_by_role("dialog").get_by_label("Reason").fill("maintenance")
    await looks_on.get_by_role("dialog").get_by_role("button", name="End the session").click()
    await expect(page.get_by_text("An administrator has ended this session.")).to_be_visible()
    await expect(looks_on.get_by_text("Stopped", exact=True)).to_be_visible()


async def test_files_go_both_ways(visitor: Visitor, tmp_path: Path) -> None:
    """A folder is looked into, a file put there, replaced only after a question, and taken out again as it was."""
    page, folder, own = visitor.page, tmp_path / "there", tmp_path / "notes <b>.txt"
    folder.mkdir()
    (folder / "below").mkdir()
    own.write_bytes(b"first\n")
    await open_first(visitor)
    await page.get_by_role("button", name="Files").click()
    dialog = page.get_by_role("dialog", name="Files on web-1")
    await dialog.get_by_label("Folder").fill(str(folder))
    await page.keyboard.press("Enter")
    await expect(dialog.get_by_role("button", name="below")).to_be_visible()
    await dialog.locator("input[type=file]").set_input_files(own)
    await expect(dialog.get_by_role("link", name="Download: notes <b>.txt")).to_be_visible()
    assert (folder / own.name).read_bytes() == b"first\n"

    own.write_bytes(b"second\n" * 100_000)
    await dialog.locator("input[type=file]").set_input_files(own)
    await expect(dialog.get_by_role("alert")).to_contain_text("is there already")
    assert (folder / own.name).read_bytes() == b"first\n"
    await dialog.get_by_role("button", name="Replace").click()
    await expect(dialog.get_by_role("row").filter(has_text="notes")).to_contain_text("KiB")
    assert await visitor.accessibility_findings() == []
    async with page.expect_download() as started:
        await dialog.get_by_role("link", name="Download: notes <b>.txt").click()
    assert (await (await started.value).path()).read_bytes() == own.read_bytes()

    await dialog.get_by_role("button", name="below").click()
    await expect(dialog.get_by_text("This folder is empty.")).to_be_visible()
    await dialog.get_by_role("button", name="Up").click()
    await expect(dialog.get_by_role("button", name="below")).to_be_visible()


async def test_a_saved_command_waits_for_enter(fleet: Fleet, visitor: Visitor) -> None:
    page = visitor.page
    await page.goto(f"{fleet.console.url}/snippets?command=echo+sav''ed")
    await page.get_by_role("dialog").get_by_label("Name").fill("greet")
    await page.get_by_role("dialog").get_by_role("button", name=re.compile("Save|Add")).click()
    await expect(page.get_by_role("row").filter(has_text="greet")).to_be_visible()
    await page.goto(fleet.console.url)
    await open_first(visitor)
    await page.keyboard.press("Control+Shift+S")
    await page.get_by_role("dialog").get_by_role("button", name="greet").click()
    await page.get_by_role("dialog").get_by_role("button", name="Take this command").click()
    await expect(screen(page)).to_contain_text("echo sav''ed")
    await expect(screen(page)).not_to_contain_text("saved")
    await page.keyboard.press("Enter")
    await expect(screen(page)).to_contain_text("saved")


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_terminals_are_accessible(fleet: Fleet, visitor: Visitor, theme: Literal["light", "dark"]) -> None:
    page = visitor.page
    findings: list[str] = []

    async def examine(name: str) -> None:
        findings.extend(f"{name}: {found}" for found in await visitor.accessibility_findings())

    await page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    await open_first(visitor)
    await run(page, "for c in 31 32 33 34 35 36 90 93 96; do printf '\\033[%sm%s\\033[0m ' $c colour; done; echo")
    await expect(screen(page)).to_contain_text("colour")
    await examine("terminal")
    await page.get_by_role("button", name="Appearance").click()
    await page.get_by_label("For screen readers").check()
    await examine("appearance")
    await page.get_by_role("button", name="Done").click()
    await run(page, "echo spo''ken")
    await expect(page.get_by_role("listitem").filter(has_text=re.compile("^spoken"))).to_be_attached()
    await examine("terminal for screen readers")
    await paste(page, "a\nb")
    await expect(page.get_by_role("dialog")).to_be_visible()
    await examine("paste")
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Split: Side by side").click()
    await wait_for_prompt(page)
    await page.set_viewport_size({"width": 390, "height": 844})
    await expect(page.get_by_role("toolbar", name="Keys").first).to_be_visible()
    await examine("terminal on a phone")
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    await run(page, "exit")
    await page.get_by_role("link", name="Watch the recording").click()
    await expect(page.get_by_role("slider", name="Position")).to_be_visible()
    await examine("recording on a phone")
    await page.goto(f"{fleet.console.url}/recordings")
    await expect(page.get_by_role("row").first).to_be_visible()
    await examine("sessions on a phone")
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await page.set_viewport_size({"width": 1280, "height": 800})
    await page.goto(f"{fleet.console.url}/recordings?q=colour")
    await expect(page.get_by_role("link").filter(has_text="colour").first).to_be_visible()
    await examine("search")
    assert not findings, "\n".join(findings)
