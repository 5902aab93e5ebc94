"""Files copied over SFTP through the whole HTTP application, to and from real hosts."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote_from_bytes

import httpx2
import pytest
from sqlalchemy import update

from server_monitor.auth.actor import Role, os_user
from server_monitor.db.engine import Database
from server_monitor.db.tables import servers
from server_monitor.errors import Conflict
from server_monitor.terminal.files import Copying, Download
from tests.ssh.conftest import Fleet
from tests.support.api import Person, Site, site_on
from tests.support.fleet import VAULT, records
from tests.support.patience import PATIENCE_S
from tests.support.sshd import Sshd, Sshds

pytestmark = pytest.mark.sshd
ADMIN = os_user("tests")
VERSION = Path("/proc/version").read_bytes()
STRANGE = b"a \xff%&+?#\n\x01\xe2\x80\xae.txt"


@pytest.fixture
async def site(sqlite_db: Database, tmp_path: Path) -> AsyncIterator[Site]:
    async with site_on(sqlite_db, tmp_path) as site:
        yield site


@pytest.fixture
def sshd(sshds: Sshds) -> Sshd:
    """A host with SFTP, as every OpenSSH comes."""
    return sshds.start(options={"Subsystem": "sftp internal-sftp"})


@pytest.fixture
async def server(site: Site, sshd: Sshd) -> str:
    target = await Fleet(site.db, VAULT).add_sshd(sshd)
    async with site.db.transaction() as conn:
        await conn.execute(update(servers).where(servers.c.id == target.server_id).values(capability="terminal"))
    return target.server_id


@pytest.fixture
async def operator(site: Site) -> Person:
    return await site.person(Role.OPERATOR)


@pytest.fixture
def folder(sshd: Sshd) -> Path:
    return sshd.home


def names(folder: Path) -> list[bytes]:
    return os.listdir(os.fsencode(folder))  # Names that may be no text.


def place(server: str, path: bytes | Path, *, content: bool = True, more: str = "") -> str:
    encoded = quote_from_bytes(os.fsencode(path) if isinstance(path, Path) else path)
    return f"/api/servers/{server}/files{'/content' if content else ''}?path={encoded}{more}"


async def put(person: Person, url: str, data: object, **headers: str) -> httpx2.Response:
    return await person.client.put(url, content=data, headers={"Authorization": f"Bearer {person.token}", **headers})


async def fetch(person: Person, url: str) -> httpx2.Response:
    """The answer to this very address: its query holds bytes that a client would write in another way."""
    return await person.client.get(url, headers={"Authorization": f"Bearer {person.token}"})


async def copies(db: Database) -> list[dict]:
    return [record for record in await records(db) if record["action"].startswith("file.")]


def copying(site: Site, most_bytes: int = 1 << 30) -> Copying:
    """What is copied can be changed meanwhile: nothing reads ahead, as the client of the other tests does."""
    return Copying(site.db, site.pool, most_bytes)


async def read(download: Download) -> bytes:
    return b"".join([piece async for piece in download.pieces])


async def outcome(db: Database) -> tuple[str, str | None, int]:
    last = (await copies(db))[-1]
    assert last["phase"] == "outcome"
    return last["outcome"], last.get("reason"), last["meta"]["bytes"]


async def test_what_is_uploaded_is_there_whole_and_comes_back_the_same(operator: Person, server: str, folder: Path):
    data = os.urandom(3_000_001)
    answer = await put(operator, place(server, folder / "big.bin"), data)
    assert answer.status_code == 201, answer.text
    assert answer.json()["sha256"] == hashlib.sha256(data).hexdigest()
    assert (folder / "big.bin").read_bytes() == data
    assert names(folder) == [b"big.bin"]

    back = await fetch(operator, place(server, folder / "big.bin"))
    assert back.content == data
    assert back.headers["content-length"] == str(len(data))
    assert back.headers["content-disposition"].startswith("attachment;")


async def test_each_copy_is_recorded_before_and_after_with_its_hash(
    site: Site, operator: Person, server: str, folder: Path
):
    await put(operator, place(server, folder / "x"), b"hello")
    await fetch(operator, place(server, folder / "x"))

    found = await copies(site.db)
    assert [(one["action"], one["phase"]) for one in found] == [
        ("file.upload", "intent"),
        ("file.upload", "outcome"),
        ("file.download", "intent"),
        ("file.download", "outcome"),
    ]
    for outcome in (found[1], found[3]):
        assert outcome["outcome"] == "success"
        assert outcome["meta"]["sha256"] == hashlib.sha256(b"hello").hexdigest()
        assert (outcome["meta"]["bytes"], outcome["meta"]["path"]) == (5, str(folder / "x"))


async def test_names_of_any_bytes_are_listed_and_copied(operator: Person, server: str, folder: Path):
    path = os.fsencode(folder) + b"/" + STRANGE
    answer = await put(operator, place(server, path), b"odd")
    assert answer.status_code == 201, answer.text
    assert os.listdir(os.fsencode(folder)) == [STRANGE]  # A name that is no text.

    listed = (await fetch(operator, place(server, folder, content=False))).json()
    (item,) = listed["items"]
    assert item["encoded"] == quote_from_bytes(path)
    assert (item["kind"], item["size_bytes"]) == ("file", 3)
    back = await fetch(operator, f"/api/servers/{server}/files/content?path={item['encoded']}")
    assert back.content == b"odd"
    assert "\n" not in back.headers["content-disposition"]


async def test_a_file_that_is_there_is_replaced_only_when_that_is_asked_for(
    operator: Person, server: str, folder: Path
):
    (folder / "x").write_text("old")
    (folder / "x").chmod(0o640)
    assert (await put(operator, place(server, folder / "x"), b"new")).status_code == 409
    assert (folder / "x").read_text() == "old"

    assert (await put(operator, place(server, folder / "x", more="&replace=true"), b"new")).status_code == 201
    assert (folder / "x").read_text() == "new"
    assert (folder / "x").stat().st_mode & 0o777 == 0o640
    assert (await put(operator, place(server, folder, more="&replace=true"), b"new")).status_code == 409


async def test_an_upload_that_is_cut_off_leaves_nothing_behind(site: Site, operator: Person, server: str, folder: Path):
    async def half() -> AsyncIterator[bytes]:
        yield b"x" * 500_000

    answer = await put(operator, place(server, folder / "x"), half(), **{"Content-Length": "1000000"})
    assert answer.status_code in {400, 409}
    assert names(folder) == []
    assert [(one["phase"], one.get("outcome")) for one in await copies(site.db)] == [
        ("intent", None),
        ("outcome", "failure"),
    ]


async def test_a_link_is_replaced_and_not_followed(operator: Person, server: str, folder: Path):
    (folder / "target").write_text("safe")
    (folder / "link").symlink_to("target")
    answer = await put(operator, place(server, folder / "link", more="&replace=true"), b"new")

    assert answer.status_code == 201
    assert (folder / "target").read_text() == "safe"
    assert (folder / "link").read_text() == "new"


async def test_a_link_to_nothing_is_replaced_too(operator: Person, server: str, folder: Path):
    (folder / "link").symlink_to("nowhere")
    assert (await put(operator, place(server, folder / "link"), b"new")).status_code == 409

    answer = await put(operator, place(server, folder / "link", more="&replace=true"), b"new")
    assert answer.status_code == 201, answer.text
    assert not (folder / "link").is_symlink()
    assert (folder / "link").read_text() == "new"
    assert names(folder) == [b"link"]


async def test_a_link_to_a_directory_is_not_replaced(operator: Person, server: str, folder: Path):
    (folder / "releases").mkdir()
    (folder / "current").symlink_to("releases")
    answer = await put(operator, place(server, folder / "current", more="&replace=true"), b"new")

    assert answer.status_code == 409
    assert (folder / "current").is_symlink()


async def test_what_replaces_a_link_is_for_no_more_eyes_than_where_it_led(operator: Person, server: str, folder: Path):
    (folder / "target").write_text("safe")
    (folder / "target").chmod(0o600)
    (folder / "link").symlink_to("target")
    await put(operator, place(server, folder / "link", more="&replace=true"), b"new")

    assert (folder / "link").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("path", "status"), [("missing/x", 404), ("file/x", 409)])
async def test_an_upload_says_which_directory_there_is_not(
    operator: Person, server: str, folder: Path, path: str, status: int
):
    (folder / "file").write_text("no directory")
    answer = await put(operator, place(server, folder / path), b"x")

    assert answer.status_code == status
    assert f"{folder / path}".removesuffix("/x") + "'" in answer.json()["detail"]


async def test_an_upload_that_the_host_refuses_is_told_of_the_name_that_was_asked_for(operator: Person, server: str):
    answer = await put(operator, place(server, b"/proc/x"), b"x")

    assert not answer.is_success
    assert "'/proc/x'" in answer.json()["detail"]


async def test_a_name_that_no_host_takes_is_refused_by_its_field(operator: Person, server: str, folder: Path):
    assert (await put(operator, place(server, folder / ("n" * 255)), b"x")).status_code == 201
    answer = await put(operator, place(server, folder / ("n" * 256)), b"x")

    assert answer.status_code == 422
    assert [one["field"] for one in answer.json()["errors"]] == ["path"]


@pytest.mark.parametrize(
    ("path", "status"),
    [("missing", 404), ("", 409), ("x/", 409), ("n\x00ul", 422), ("p" * 5000, 422)],
)
async def test_what_cannot_be_downloaded_says_so(operator: Person, server: str, folder: Path, path: str, status: int):
    (folder / "x").mkdir()
    answer = await fetch(operator, place(server, os.fsencode(folder) + b"/" + path.encode()))

    assert answer.status_code == status, answer.text


async def test_a_file_that_grows_comes_as_it_was_at_the_beginning(site: Site, server: str, folder: Path):
    log = folder / "log"
    log.write_bytes(b"x" * 700_000)
    with log.open("ab") as more:
        async with copying(site).download(server, os.fsencode(log), actor=ADMIN) as download:
            assert download.size_bytes == 700_000
            got = await anext(download.pieces)
            more.write(b"one more line\n")
            more.flush()
            got += await read(download)

    assert got == b"x" * 700_000
    assert await outcome(site.db) == ("success", None, 700_000)


async def test_a_file_that_becomes_shorter_is_cut_off(site: Site, server: str, folder: Path):
    log = folder / "log"
    log.write_bytes(b"x" * 700_000)
    with pytest.raises(Conflict):  # noqa: PT012
        async with copying(site).download(server, os.fsencode(log), actor=ADMIN) as download:
            await anext(download.pieces)
            os.truncate(log, 300_000)
            await read(download)

    assert await outcome(site.db) == ("failure", "conflict", 300_000)


async def test_who_leaves_before_the_last_bytes_has_not_got_the_file(site: Site, server: str, folder: Path):
    (folder / "x").write_bytes(b"x" * 700_000)
    async with copying(site).download(server, os.fsencode(folder / "x"), actor=ADMIN) as download:
        await anext(download.pieces)

    assert (await outcome(site.db))[:2] == ("failure", "cut_off")


async def test_a_file_that_says_it_is_empty_comes_as_it_can_be_read(site: Site, operator: Person, server: str):
    answer = await fetch(operator, place(server, b"/proc/version"))

    assert answer.content == VERSION
    assert "content-length" not in answer.headers
    assert await outcome(site.db) == ("success", None, len(answer.content))


async def test_an_empty_file_is_empty(site: Site, operator: Person, server: str, folder: Path):
    (folder / "x").touch()
    answer = await fetch(operator, place(server, folder / "x"))

    assert (answer.status_code, answer.content) == (200, b"")
    assert await outcome(site.db) == ("success", None, 0)


async def test_a_file_that_says_it_is_empty_has_the_same_limit(site: Site, server: str):
    with pytest.raises(Conflict):
        async with copying(site, most_bytes=10).download(server, b"/proc/version", actor=ADMIN) as download:
            await read(download)

    assert (await outcome(site.db))[0] == "failure"


async def test_endless_files_are_no_plain_files(operator: Person, server: str):
    assert (await fetch(operator, place(server, b"/dev/zero"))).status_code == 409


@pytest.mark.parametrize("role", [Role.VIEWER, Role.AUDITOR])
async def test_it_takes_the_permission(site: Site, server: str, folder: Path, role: Role):
    person = await site.person(role)
    for url in (place(server, folder, content=False), place(server, folder / "x")):
        assert (await fetch(person, url)).status_code == 403
    assert (await put(person, place(server, folder / "x"), b"")).status_code == 403
    assert names(folder) == []


async def test_each_refusal_is_recorded(site: Site, server: str, folder: Path):
    """With who it was and what they wanted; to look into a directory is the beginning of a download."""
    person = await site.person(Role.VIEWER)
    await fetch(person, place(server, folder, content=False))
    await fetch(person, place(server, folder / "x"))
    await put(person, place(server, folder / "x"), b"")

    found = await copies(site.db)
    assert [(one["action"], one["meta"]["listing"], one["meta"]["path"]) for one in found] == [
        ("file.download", True, str(folder)),
        ("file.download", False, str(folder / "x")),
        ("file.upload", False, str(folder / "x")),
    ]
    for one in found:
        assert (one["outcome"], one["reason"]) == ("denied", "not_permitted")
        assert (one["actor"]["id"], one["target"]["id"]) == (person.id, server)


async def test_it_takes_a_server_at_capability_terminal(site: Site, operator: Person, server: str, folder: Path):
    async with site.db.transaction() as conn:
        await conn.execute(update(servers).where(servers.c.id == server).values(capability="run"))

    assert (await fetch(operator, place(server, folder, content=False))).status_code == 403
    assert [(one["outcome"], one["reason"]) for one in await copies(site.db)] == [("denied", "capability")]


async def test_a_full_disk_on_the_host_is_told_and_leaves_nothing(operator: Person, server: str, small_disk: Path):
    answer = await put(operator, place(server, small_disk / "x"), os.urandom(60_000_000))

    assert answer.status_code == 409, answer.text
    assert names(small_disk) == []


async def test_a_person_copies_only_so_many_files_at_once(operator: Person, server: str, folder: Path):
    going = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        await going.wait()

    running = [asyncio.create_task(put(operator, place(server, folder / f"f{n}"), slow())) for n in range(4)]
    try:
        async with asyncio.timeout(PATIENCE_S):
            while len(names(folder)) < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        refused = await put(operator, place(server, folder / "one too many"), b"x")
        assert refused.status_code == 429
    finally:
        going.set()
        answers = await asyncio.gather(*running)
    assert {answer.status_code for answer in answers} == {201}
