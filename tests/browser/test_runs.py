"""Commands in a real browser: seen before they run, watched while they do, approved by somebody else."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from tests.browser.visitor import Fleet, Visitor, watch
from tests.support.console import PASSWORD, ConsoleProcess

pytestmark = [pytest.mark.browser, pytest.mark.long]

RUN_PAGE = re.compile(r"/runs/[0-9a-f-]{36}")
# What has to be approved by a second person whatever else it holds: nobody can tell what it runs.
NEEDS_APPROVAL = 'eval "$(cat /no-such-file-ASK 2>/dev/null)"; echo done'
# What no policy allows, and what would do nothing anywhere: there is no such device.
DENIED = "mkfs.ext4 /dev/no-such-device-DENY"


@pytest.fixture
async def console(tmp_path: Path) -> AsyncIterator[ConsoleProcess]:
    """A running console that knows only its own machine."""
    one = ConsoleProcess(tmp_path / "data")
    await one.start()
    try:
        yield one
    finally:
        if one.is_running:
            await one.kill()


async def allow_commands(page: Page, url: str, name: str) -> None:
    """Raise a server to capability run, on its page."""
    await page.goto(url)
    await page.get_by_role("row").filter(has_text=name).get_by_role("link").click()
    await page.get_by_role("button", name="More actions").click()
    await page.get_by_role("button", name="Allow commands").click()
    await expect(page.get_by_label("About this server")).to_contain_text("run commands")


async def start_here(page: Page, console: ConsoleProcess, visitor: Visitor) -> None:
    """Set up, and allow commands on the console's own machine; ends on its page."""
    await visitor.set_up(console.url, console.setup_token)
    await allow_commands(page, console.url, "this machine")


async def write_command(page: Page, command: str) -> None:
    await page.get_by_label("Command", exact=True).fill(command)
    await expect(page.get_by_label("What the policy says")).not_to_be_empty()


async def run_here(page: Page, command: str) -> None:
    """From a server's page to the page of a run of this command there."""
    await page.get_by_role("link", name="Run command").click()
    await write_command(page, command)
    await expect(page.get_by_role("button", name=re.compile("1 server"))).to_have_attribute("aria-disabled", "false")
    await page.keyboard.press("Control+Enter")
    await expect(page).to_have_url(RUN_PAGE)


def output(page: Page) -> Locator:
    return page.get_by_role("group", name=re.compile("^Output, "))


async def log_in(page: Page, url: str, name: str) -> None:
    await page.goto(url)
    await page.get_by_label("User name").fill(name)
    await page.get_by_label("Password", exact=True).fill(PASSWORD)
    await page.get_by_role("button", name="Log in").click()


async def add_user(console: ConsoleProcess, name: str, role: str) -> None:
    added = await console.run("user", "add", name, "--role", role, "--password-stdin", stdin=PASSWORD.encode())
    assert added[0] == 0, added


async def test_a_command_is_watched_while_it_runs(console: ConsoleProcess, visitor: Visitor, tmp_path: Path) -> None:
    """Before it starts one sees where; its output appears as it comes; nothing that it prints does anything."""
    page, gate = visitor.page, tmp_path / "gate"
    await start_here(page, console, visitor)
    await page.get_by_role("link", name="Run command").click()
    await expect(page.get_by_label("Exactly here").first).to_contain_text("1 server")
    await run_here_from_form(
        page,
        f"printf 'first \\033]0;owned\\007\\033[31mred\\033[0m <b>bold</b>\\n'; "
        f"until test -e {gate}; do sleep 0.05; done; echo second; echo third >&2; exit 3",
    )

    await expect(output(page)).to_contain_text("first red <b>bold</b>")
    await expect(page.get_by_text("Running").first).to_be_visible()
    assert await output(page).locator("b").count() == 0
    await expect(output(page).locator(".fg-1")).to_have_text("red")
    await expect(output(page)).not_to_contain_text("owned")
    gate.touch()
    await expect(output(page)).to_contain_text("second")
    await expect(page.get_by_role("group", name=re.compile("^Errors, "))).to_have_text("third")
    await expect(page.get_by_text("exit 3").first).to_be_visible()
    await expect(page.get_by_text("The command ended with an exit status other than 0.")).to_be_visible()

    async with page.expect_download() as started:
        await page.get_by_role("link", name="Download Output").click()
    await (await started.value).save_as(tmp_path / "output")
    assert (tmp_path / "output").read_bytes().endswith(b"<b>bold</b>\nsecond\n")


async def run_here_from_form(page: Page, command: str) -> None:
    await write_command(page, command)
    await expect(page.get_by_role("button", name="Run on 1 server")).to_have_attribute("aria-disabled", "false")
    await page.keyboard.press("Control+Enter")
    await expect(page).to_have_url(RUN_PAGE)


async def test_enter_in_a_field_runs_nothing(console: ConsoleProcess, visitor: Visitor) -> None:
    """Somebody who looks for a server presses Enter; the command that is already written does not run by that."""
    page = visitor.page
    await start_here(page, console, visitor)
    await page.get_by_role("link", name="Run command").click()
    await write_command(page, "true")
    await expect(page.get_by_role("button", name="Run on 1 server")).to_have_attribute("aria-disabled", "false")
    await page.get_by_role("searchbox", name="Find servers").press("Enter")
    await page.get_by_text("Options").click()
    await page.get_by_label("Reason").press("Enter")
    await page.goto(f"{console.url}/runs")
    await expect(page.get_by_text("Nothing was run yet")).to_be_visible()


async def test_a_command_is_run_and_found_again_by_keyboard(console: ConsoleProcess, visitor: Visitor) -> None:
    """Choose a server in the fleet, write, run, read, and open the run from the history, without a pointer."""
    page = visitor.page
    await start_here(page, console, visitor)
    keys = page.keyboard
    await page.locator("body").press("u")
    await visitor.wait_until_live("this machine")
    await keys.press("j")
    await keys.press("x")
    await expect(page.get_by_role("group", name="1 server chosen")).to_be_visible()
    await keys.press("r")
    await expect(page.get_by_label("Command", exact=True)).to_be_focused()
    await keys.insert_text("echo by hand")
    await expect(page.get_by_role("button", name="Run on 1 server")).to_have_attribute("aria-disabled", "false")
    await keys.press("Control+Enter")
    await expect(output(page)).to_have_text("by hand")
    await page.locator("body").press("u")
    await expect(page.get_by_role("link", name="echo by hand")).to_be_visible()
    await keys.press("j")
    await expect(page.get_by_role("link", name="echo by hand")).to_be_focused()
    await keys.press("Enter")
    await expect(output(page)).to_have_text("by hand")
    await visitor.press_both("g", "n", page.get_by_role("heading", name="Run a command"))


async def test_what_failed_is_tried_again_and_what_runs_is_cancelled(
    console: ConsoleProcess, visitor: Visitor, tmp_path: Path
) -> None:
    page, mended = visitor.page, tmp_path / "mended"
    await start_here(page, console, visitor)
    await run_here(page, f"test -e {mended} && sleep 600")
    await expect(page.get_by_text("Failed").first).to_be_visible()
    first = page.url

    mended.touch()
    await page.get_by_role("button", name="Retry 1 server").click()
    await expect(page).not_to_have_url(first)
    await expect(page.get_by_text("Tries again")).to_be_visible()
    await page.get_by_role("button", name="Cancel on this server").click()
    await expect(page.get_by_text("Cancelled", exact=True).first).to_be_visible()

    await page.locator("body").press("u")
    await expect(page.get_by_role("table", name="Runs, newest first").get_by_role("link")).to_have_count(2)
    await page.get_by_label("State").select_option("cancelled")
    await expect(page.get_by_role("table", name="Runs, newest first").get_by_role("link")).to_have_count(1)
    await expect(page).to_have_url(re.compile("status=cancelled"))


async def test_a_second_person_decides(console: ConsoleProcess, visitor: Visitor, chromium: Browser) -> None:
    """Whoever asked cannot approve; somebody else is told that they may, approves, and both see the output."""
    page = visitor.page
    await start_here(page, console, visitor)
    await add_user(console, "grace", "operator")
    await run_here(page, NEEDS_APPROVAL)
    await expect(page.get_by_text("You asked for this, so somebody else has to decide.")).to_be_visible()
    await expect(page.get_by_role("button", name="Approve and run")).to_have_count(0)

    context = await chromium.new_context(viewport={"width": 375, "height": 812}, locale="en-GB")
    try:
        other = await watch(context)
        await log_in(other.page, f"{console.url}/login?next=/runs", "grace")
        await expect(other.page.get_by_role("link", name="Runs 1 run waits for your approval")).to_be_visible()
        await other.page.get_by_role("link", name=NEEDS_APPROVAL).click()
        await expect(other.page.get_by_text("ada asks to run this on 1 server.")).to_be_visible()
        await expect(other.page.get_by_text(re.compile(r"Expires in 2\d min"))).to_be_visible()
        assert await other.accessibility_findings() == []
        await other.page.get_by_role("button", name="Approve and run").click()
        for somebody in (other.page, page):
            await expect(output(somebody)).to_have_text("done")
            await expect(somebody.get_by_text("Approved by grace.")).to_be_visible()
        await expect(other.page.get_by_role("link", name="Runs 1 run waits for your approval")).to_have_count(0)

        await page.get_by_role("link", name="Run again").click()
        await expect(page.get_by_label("Command", exact=True)).to_have_value(NEEDS_APPROVAL)
        await page.get_by_role("button", name="Ask for approval for 1 server").click()
        await expect(page).to_have_url(RUN_PAGE)
        await other.page.goto(page.url)
        await other.page.get_by_role("button", name="Reject").click()
        await other.page.get_by_label("Why").fill("not today")
        await other.page.get_by_role("dialog").get_by_role("button", name="Reject").click()
        await expect(page.get_by_text("Rejected by grace.")).to_be_visible()
        assert other.complaints == []
    finally:
        await context.close()


async def test_what_the_policy_refuses_cannot_be_run(console: ConsoleProcess, visitor: Visitor) -> None:
    """It is said while one types, and the button says why it does nothing."""
    page = visitor.page
    await start_here(page, console, visitor)
    await page.get_by_role("link", name="Run command").click()
    await write_command(page, DENIED)
    await expect(page.get_by_label("What the policy says")).to_contain_text("The policy refuses this")
    await page.keyboard.press("Control+Enter")
    await expect(page.get_by_text("The policy refuses this command.")).to_be_visible()
    assert page.url.partition("?")[0].endswith("/runs/new")


@pytest.mark.sshd
async def test_same_output_is_shown_once_and_the_odd_one_as_a_difference(fleet: Fleet, visitor: Visitor) -> None:
    """Servers are ticked in the fleet; the two that printed the same are together, the third is compared with them."""
    page, url = visitor.page, fleet.console.url
    await visitor.set_up(url, fleet.console.setup_token)
    await visitor.import_servers(fleet.ssh_config())
    await visitor.approve_all()
    for name in ("web-1", "web-2"):
        await visitor.wait_until_live(name)
    for name in ("web-1", "web-2", "this machine"):
        await allow_commands(page, url, name)

    await page.goto(url)
    await visitor.row("web-1").wait_for()
    await page.get_by_role("checkbox", name="Choose all that are shown").check()
    await page.get_by_role("group", name="3 servers chosen").get_by_role("button", name="Run command").click()
    await expect(page.get_by_label("Exactly here").first).to_contain_text("3 servers")
    await write_command(page, 'echo same; echo "${SSH_CONNECTION:+by SSH}"; echo end')
    await page.get_by_role("button", name="Run on 3 servers").click()

    await expect(page.get_by_role("heading", name="2 servers: same; 1 differs")).to_be_visible()
    changes = page.get_by_role("group", name="Differences, 1 server")
    await expect(changes).to_contain_text("only there: by SSH")
    assert await visitor.accessibility_findings() == []
    await page.get_by_role("button", name="Succeeded 3").click()
    await page.get_by_role("group", name="Servers").get_by_role("link", name="web-2").click()
    await expect(output(page)).to_contain_text("by SSH")
    await page.set_viewport_size({"width": 375, "height": 812})
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await page.get_by_role("button", name="All servers").click()
    await expect(page.get_by_role("heading", name="2 servers: same; 1 differs")).to_be_visible()


async def test_a_saved_command_takes_values_as_words_only(console: ConsoleProcess, visitor: Visitor) -> None:
    """A value that does not fit is refused; one with quotes and a command in it is printed as it is."""
    page = visitor.page
    await start_here(page, console, visitor)
    await page.goto(f"{console.url}/snippets")
    await page.get_by_role("button", name="New saved command").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Name").fill("Say it")
    await dialog.get_by_label("Command", exact=True).fill("echo '{{words}}'")
    await expect(dialog.get_by_text("Take the quotes away from around {{words}}")).to_be_visible()
    await dialog.get_by_label("Command", exact=True).fill("echo {{words}}")
    await dialog.get_by_label("Pattern").fill("[^!]+")
    assert await visitor.accessibility_findings() == []
    await dialog.get_by_role("button", name="Save").click()

    await page.get_by_role("button", name="Use: Say it").click()
    await dialog.get_by_label("words").fill("no!")
    await expect(dialog.get_by_text("Does not match [^!]+")).to_be_visible()
    await dialog.get_by_label("words").fill("it's $(id)")
    await expect(dialog.locator("pre")).to_have_text("echo 'it'\\''s $(id)'")
    await dialog.get_by_role("button", name="Take this command").click()
    await page.get_by_role("checkbox", name="Every server there is").check()
    taken = "echo 'it'\\''s $(id)'"
    await expect(page.get_by_label("Command", exact=True)).to_have_value(taken)
    await run_here_from_form(page, taken)
    await expect(output(page)).to_have_text("it's $(id)")

    await page.goto(f"{console.url}/snippets")
    await page.get_by_role("button", name="Remove: Say it").click()
    await dialog.get_by_role("button", name="Remove").click()
    await expect(page.get_by_text("No saved commands yet")).to_be_visible()


async def test_an_auditor_reads_runs_and_a_viewer_sees_none(console: ConsoleProcess, visitor: Visitor) -> None:
    page = visitor.page
    await start_here(page, console, visitor)
    await run_here(page, "echo for the record")
    await expect(output(page)).to_have_text("for the record")
    run_url = page.url
    for name, role in {"eve": "auditor", "vic": "viewer"}.items():
        await add_user(console, name, role)

    await page.context.clear_cookies()
    await log_in(page, run_url, "eve")
    await expect(output(page)).to_have_text("for the record")
    for action in ("Run again", "Run command"):
        await expect(page.get_by_role("link", name=action)).to_have_count(0)
    await page.get_by_role("link", name="Runs", exact=True).first.click()
    await expect(page.get_by_role("link", name="echo for the record")).to_be_visible()
    assert await visitor.accessibility_findings() == []

    await page.context.clear_cookies()
    await log_in(page, f"{console.url}/login?next=/runs", "vic")
    await expect(page.get_by_text("Your role does not show commands that were run.")).to_be_visible()
    await expect(page.get_by_role("navigation", name="Main").get_by_role("link", name="Runs")).to_have_count(0)


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_the_pages_of_runs_are_accessible(
    console: ConsoleProcess, visitor: Visitor, theme: Literal["light", "dark"]
) -> None:
    """axe finds nothing, on a desk or a phone, and nothing is wider than a phone."""
    page = visitor.page
    findings: list[str] = []

    async def examine(name: str) -> None:
        findings.extend(f"{name}: {found}" for found in await visitor.accessibility_findings())

    await page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    await start_here(page, console, visitor)
    await run_here(page, "printf '\\033[3%sm colour \\033[0m' 1 2 3 4 5 6; echo; echo oops >&2; false")
    await expect(page.get_by_text("exit 1").first).to_be_visible()
    await examine("run")
    run = page.url.removeprefix(console.url)
    await page.goto(f"{console.url}/runs/new")
    await page.get_by_text("Options").click()
    await page.get_by_role("checkbox", name="Every server there is").check()
    await page.get_by_role("button", name="Add secret").click()
    await write_command(page, DENIED)
    await expect(page.get_by_label("Exactly here").first).to_contain_text("1 server")
    await examine("new run")
    for path, shown in {"/runs": "Runs", "/snippets": "Saved commands", "/policy": "Runs", run: "Command on"}.items():
        for width in (1280, 375):
            await page.set_viewport_size({"width": width, "height": 812})
            await page.goto(console.url + path)
            await expect(page.get_by_role("heading", name=shown).first).to_be_visible()
            await examine(f"{path} at {width}")
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
    assert not findings, "\n".join(findings)
