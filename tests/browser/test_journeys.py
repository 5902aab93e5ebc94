"""What people do in their first minutes, in a real browser against a real console and real hosts."""

import asyncio
import re

import pytest
from playwright.async_api import expect

from tests.browser.visitor import Fleet, Visitor
from tests.support.console import ADMIN

NEXT_PASSWORD = "another horse battery staple"

pytestmark = [pytest.mark.browser, pytest.mark.sshd, pytest.mark.long]


async def test_first_five_minutes(fleet: Fleet, visitor: Visitor) -> None:
    """Setup, own machine live, import, approval, all live, and all of it still there after a restart."""
    console, page = fleet.console, visitor.page
    await visitor.set_up(console.url, console.setup_token)
    assert "token" not in page.url
    await visitor.wait_until_live("this machine")

    await visitor.import_servers(fleet.ssh_config())
    for host in fleet.hosts:
        shown = page.get_by_role("row").filter(has_text=host.fingerprint().removeprefix("SHA256:")[:8])
        await expect(shown).to_be_visible()
    await visitor.approve_all()
    await visitor.wait_until_live("web-1")
    await visitor.wait_until_live("web-2")

    port = int(console.url.rpartition(":")[2])
    assert await console.stop() == 0
    await expect(page.get_by_text("The live connection is gone")).to_be_visible()
    await console.start(port=port)
    await expect(page.get_by_text("The live connection is gone")).to_be_hidden()
    await visitor.wait_until_live("web-1")
    await page.reload()
    await visitor.wait_until_live("web-2")


async def test_server_page_moves(fleet: Fleet, visitor: Visitor) -> None:
    """The page of the console's own machine shows facts, and its charts grow while one looks."""
    page = visitor.page
    await visitor.set_up(fleet.console.url, fleet.console.setup_token)
    await visitor.wait_until_live("this machine")
    await visitor.row("this machine").get_by_role("link").click()
    await expect(page.get_by_text("System", exact=True)).to_be_visible()
    await expect(page.get_by_role("figure")).not_to_have_count(0)
    received = page.get_by_role("figure", name="Load, chart").locator("strong").first
    await expect(received).to_have_text(re.compile(r"\d"))
    before = await received.inner_text()
    await expect(received).not_to_have_text(before)


async def test_changed_host_key_is_shown_and_replaced_only_by_a_person(fleet: Fleet, visitor: Visitor) -> None:
    """A host with another key is collected in the attention strip; old and new fingerprint stand side by side."""
    page = visitor.page
    await visitor.set_up(fleet.console.url, fleet.console.setup_token)
    await visitor.import_servers(fleet.ssh_config())
    await visitor.approve_all()
    await visitor.wait_until_live("web-1")
    old = fleet.hosts[0].fingerprint()
    fleet.hosts[0].swap_host_key()

    await page.get_by_role("button", name="Review key").click()
    dialog = page.get_by_role("dialog")
    for fingerprint in (old, fleet.hosts[0].fingerprint()):
        await expect(dialog.get_by_text(fingerprint)).to_be_visible()
    replace = dialog.get_by_role("button", name="Replace the approved key")
    await expect(replace).to_be_disabled()
    await dialog.get_by_role("checkbox").check()
    await replace.click()
    await visitor.wait_until_live("web-1")


async def test_a_test_that_is_not_let_in_says_why(fleet: Fleet, visitor: Visitor) -> None:
    """A host that shows a key and refuses the login is not called connected; once mended, the test brings it back."""
    page, host = visitor.page, fleet.hosts[0]
    await visitor.set_up(fleet.console.url, fleet.console.setup_token)
    await visitor.import_servers(fleet.ssh_config())
    await visitor.approve_all()
    await visitor.wait_until_live("web-1")
    await visitor.row("web-1").get_by_role("link").click()
    host.lock_out()
    test = page.get_by_role("button", name="Test connection")

    await expect(page.get_by_text("refused to let us in").first).to_be_visible()
    # What is said goes away by itself: somebody has to look already when it comes.
    await asyncio.gather(page.get_by_role("status").filter(has_text="authorized_keys").wait_for(), test.click())
    host.let_in()
    await asyncio.gather(page.get_by_text("Connected and logged in.").wait_for(), test.click())
    await expect(page.get_by_text("refused to let us in")).to_have_count(0)  # the toast's too


async def test_a_server_is_added_after_its_key_was_compared(fleet: Fleet, visitor: Visitor) -> None:
    """Test shows the host key before anything is saved; approving it there is enough to see the server live."""
    page, host = visitor.page, fleet.hosts[0]
    await visitor.set_up(fleet.console.url, fleet.console.setup_token)
    await page.get_by_role("button", name="Add server").click()
    dialog = page.get_by_role("dialog")
    for label, text in {"Name": "web-1", "Host": host.host, "Port": str(host.port), "User": host.username}.items():
        await dialog.get_by_label(label, exact=True).fill(text)
    await dialog.get_by_role("button", name="Test", exact=True).click()
    await expect(dialog.get_by_text(host.fingerprint())).to_be_visible()
    await dialog.get_by_role("checkbox").check()
    await dialog.get_by_role("button", name="Approve key and add").click()
    await visitor.wait_until_live("web-1")


async def test_a_part_of_a_chart_is_zoomed_by_dragging(fleet: Fleet, visitor: Visitor) -> None:
    """A drag across a chart names its range in the address, so that it can be shared; one press leads back."""
    page = visitor.page
    await visitor.set_up(fleet.console.url, fleet.console.setup_token)
    await visitor.wait_until_live("this machine")
    await visitor.row("this machine").get_by_role("link").click()
    plot = page.get_by_role("figure", name="CPU, chart").locator(".u-over")
    box = await plot.bounding_box()
    assert box is not None
    middle = box["height"] / 2
    # Where it is by then: what else the page gets to show may move it.
    await plot.hover(position={"x": box["width"] * 0.3, "y": middle})
    await page.mouse.down()
    await plot.hover(position={"x": box["width"] * 0.6, "y": middle})
    await page.mouse.up()
    await expect(page).to_have_url(re.compile(r"\?from=\d+&to=\d+$"))
    await page.get_by_role("button", name="Back to live").click()
    await expect(page).to_have_url(re.compile(r"/servers/[^?]+$"))


async def test_a_session_ended_elsewhere_asks_for_a_login_and_returns(fleet: Fleet, visitor: Visitor) -> None:
    page = visitor.page
    await visitor.set_up(fleet.console.url, fleet.console.setup_token)
    await page.goto(f"{fleet.console.url}/settings/groups")
    await expect(page.get_by_role("heading", name="Groups", exact=True)).to_be_visible()
    status, _, _ = await fleet.console.run(
        "user", "reset-password", ADMIN, "--password-stdin", stdin=NEXT_PASSWORD.encode()
    )
    assert status == 0
    await expect(page.get_by_text("Your session has ended.")).to_be_visible()
    await visitor.log_in(NEXT_PASSWORD)
    await expect(page.get_by_role("heading", name="Groups", exact=True)).to_be_visible()


async def test_mistakes_of_an_import_are_shown_with_their_lines(fleet: Fleet, visitor: Visitor) -> None:
    """Every mistake is listed with its line, nothing can be imported, and a press on the line goes there."""
    page = visitor.page
    await visitor.set_up(fleet.console.url, fleet.console.setup_token)
    await page.get_by_role("button", name="Import", exact=True).click()
    await page.get_by_label("Hosts", exact=True).fill("name,host,port\nweb-1,10.0.0.1,22\nweb-2,10.0.0.2,99999\n")
    await page.get_by_role("button", name="Go to line 3").click()
    selected = "(area) => area.value.slice(area.selectionStart, area.selectionEnd)"
    assert await page.get_by_label("Hosts", exact=True).evaluate(selected) == "web-2,10.0.0.2,99999"
    await expect(page.get_by_role("dialog").get_by_role("button", name="Import")).to_be_disabled()


async def test_login_refuses_says_why_and_returns_to_the_page_asked_for(fleet: Fleet, visitor: Visitor) -> None:
    page = visitor.page
    await visitor.set_up(fleet.console.url, fleet.console.setup_token)
    await page.goto(f"{fleet.console.url}/settings/tokens")
    await page.get_by_role("button", name="Account of ada").click()
    await page.get_by_role("button", name="Log out").click()
    await expect(page.get_by_role("heading", name="Log in")).to_be_visible()

    await page.goto(f"{fleet.console.url}/settings/tokens")
    await visitor.log_in("not the password at all")
    await expect(page.get_by_text("User name or password is wrong.")).to_be_visible()
    await visitor.log_in()
    await expect(page.get_by_role("heading", name="API tokens")).to_be_visible()
    stored = await page.evaluate("[JSON.stringify(localStorage), JSON.stringify(sessionStorage), document.cookie]")
    assert stored == ["{}", "{}", ""]


async def test_hostile_names_stay_text(fleet: Fleet, visitor: Visitor) -> None:
    """Markup in what hosts and inventories say is shown as it is and makes no element."""
    page = visitor.page
    await visitor.set_up(fleet.console.url, fleet.console.setup_token)
    await page.get_by_role("button", name="Add server").click()
    await page.get_by_label("Name", exact=True).fill("evil-1")
    await page.get_by_label("Host", exact=True).fill("127.0.0.1")
    await page.get_by_label("User", exact=True).fill("ops")
    await page.get_by_text("Jump server, labels and more").click()
    await page.get_by_label("Labels").fill("note=<img src=x onerror=alert(1)>")
    await page.get_by_role("button", name="Add server").last.click()
    await page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    await page.set_viewport_size({"width": 1600, "height": 800})
    await expect(visitor.row("evil-1")).to_contain_text("<img src=x onerror=alert(1)>")
    assert await page.locator("img, [onerror]").count() == 0


async def test_everything_by_keyboard(fleet: Fleet, visitor: Visitor) -> None:
    """Import, approve, find and open a server, change the range and come back, without a pointer."""
    page = visitor.page
    await visitor.set_up(fleet.console.url, fleet.console.setup_token)
    keys = page.keyboard
    await keys.press("i")
    await expect(page.get_by_role("heading", name="Import servers")).to_be_visible()
    await page.get_by_label("Hosts", exact=True).focus()
    await keys.insert_text(fleet.ssh_config())
    confirm = page.get_by_role("button", name="Import 2 servers")
    await expect(confirm).to_be_enabled()
    await confirm.focus()
    await keys.press("Enter")
    await visitor.wait_for_keys()
    await page.get_by_role("checkbox", name="Select all").focus()
    await keys.press("Space")
    await page.get_by_role("button", name="Approve 2 selected").focus()
    await keys.press("Enter")
    await page.get_by_role("dialog").wait_for(state="detached")
    await visitor.wait_until_live("web-1")

    await page.locator("body").press("/")
    await keys.insert_text("web")
    await keys.press("Enter")
    await expect(page.get_by_role("link", name="web-1")).to_be_focused()
    await keys.press("j")
    await expect(page.get_by_role("link", name="web-2")).to_be_focused()
    await keys.press("k")
    await keys.press("Enter")
    await expect(page.get_by_role("heading", name="web-1")).to_be_visible()
    await keys.press("]")
    await expect(page.get_by_role("button", name="15 min")).to_have_attribute("aria-pressed", "true")
    await keys.press("u")
    await expect(page.get_by_role("link", name="web-1")).to_be_visible()
    await keys.press("Control+k")
    await expect(page.get_by_role("combobox", name="Find a server or an action")).to_be_focused()
    await keys.insert_text("web-2")
    await keys.press("Enter")
    await expect(page.get_by_role("heading", name="web-2")).to_be_visible()
    await keys.press("?")
    await expect(page.get_by_role("heading", name="Keyboard shortcuts")).to_be_visible()
    await keys.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
