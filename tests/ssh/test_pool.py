"""Connecting to real sshd servers: who is let in, who is refused, and what is shared."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from server_monitor.errors import Unreachable
from server_monitor.ssh import command
from server_monitor.ssh.hostkeys import HostKeyChanged, HostKeyUnknown
from server_monitor.ssh.pool import Pool, Target
from tests.ssh.conftest import PATIENT, Fleet, MakePool, key_of
from tests.support.bad_hosts import bad_host
from tests.support.patience import PATIENCE_S, until
from tests.support.sshd import PasswordUser, Sshd, Sshds, make_key, ssh_agent

pytestmark = pytest.mark.sshd

WATCHED = {"LogLevel": "DEBUG1"}


async def output(pool: Pool, target: Target, text: str = "echo here") -> bytes:
    finished = await command.run(pool, target, text, timeout_s=PATIENCE_S, output_limit_bytes=100_000)
    return finished.stdout


# --- logging in -------------------------------------------------------------------------------------------------------


async def test_a_stored_private_key_logs_in(pool: Pool, fleet: Fleet, sshd: Sshd) -> None:
    assert await output(pool, await fleet.add_sshd(sshd)) == b"here\n"


@pytest.mark.parametrize("kind", ["rsa", "ecdsa-256"])
async def test_keys_of_other_types_log_in(pool: Pool, fleet: Fleet, sshds: Sshds, tmp_path: Path, kind: str) -> None:
    key = make_key(tmp_path / "other", kind)
    sshd = sshds.start(authorized_keys=[key.with_suffix(".pub").read_text().strip()])
    target = await fleet.add(
        sshd.host, sshd.port, username=sshd.username, auth="key", credential_id=await fleet.add_key(key.read_text())
    )
    await fleet.trust(target, key_of(sshd))

    assert await output(pool, target) == b"here\n"


@pytest.mark.parametrize(
    "options",
    [
        {"PasswordAuthentication": "yes"},
        {"KbdInteractiveAuthentication": "yes", "UsePAM": "yes"},
    ],
    ids=["password", "keyboard-interactive"],
)
async def test_a_password_logs_in_both_ways_that_hosts_ask_for_it(
    pool: Pool, fleet: Fleet, sshds: Sshds, password_user: PasswordUser, options: dict[str, str]
) -> None:
    sshd = sshds.start(options=options)
    target = await fleet.add(
        sshd.host,
        sshd.port,
        username=password_user.name,
        auth="password",
        credential_id=await fleet.add_password(password_user),
    )
    await fleet.trust(target, key_of(sshd))

    assert await output(pool, target, "id -un") == f"{password_user.name}\n".encode()


async def test_the_agent_logs_in(make_pool: MakePool, fleet: Fleet, sshd: Sshd, tmp_path: Path) -> None:
    target = await fleet.add(sshd.host, sshd.port, username=sshd.username)
    await fleet.trust(target, key_of(sshd))
    key = tmp_path / "agent_key"
    key.write_text(sshd.private_key)
    key.chmod(0o600)

    with ssh_agent(tmp_path, key) as agent_socket:
        assert await output(make_pool(agent_socket=agent_socket), target) == b"here\n"


async def test_without_an_agent_the_reason_says_so(pool: Pool, fleet: Fleet, sshd: Sshd) -> None:
    target = await fleet.add(sshd.host, sshd.port, username=sshd.username)
    await fleet.trust(target, key_of(sshd))

    assert await reason_of(pool, target) == "credential_missing"


async def test_an_agent_that_is_gone_or_holds_no_key_is_a_missing_credential(
    make_pool: MakePool, fleet: Fleet, sshd: Sshd, tmp_path: Path
) -> None:
    target = await fleet.add(sshd.host, sshd.port, username=sshd.username)
    await fleet.trust(target, key_of(sshd))

    assert await reason_of(make_pool(agent_socket=str(tmp_path / "nowhere")), target) == "credential_missing"
    with ssh_agent(tmp_path) as agent_socket:
        assert await reason_of(make_pool(agent_socket=agent_socket), target) == "credential_missing"


async def test_a_key_that_the_host_does_not_know_is_refused(
    pool: Pool, fleet: Fleet, sshd: Sshd, tmp_path: Path
) -> None:
    stranger = make_key(tmp_path / "stranger", "ed25519").read_text()
    target = await fleet.add(
        sshd.host, sshd.port, username=sshd.username, auth="key", credential_id=await fleet.add_key(stranger)
    )
    await fleet.trust(target, key_of(sshd))

    assert await reason_of(pool, target) == "auth_failed"


async def test_a_wrong_password_is_tried_once(
    pool: Pool, fleet: Fleet, sshds: Sshds, password_user: PasswordUser
) -> None:
    sshd = sshds.start(
        options={"PasswordAuthentication": "yes", "KbdInteractiveAuthentication": "yes", "UsePAM": "yes"}
    )
    wrong = PasswordUser(password_user.name, "not the password")
    target = await fleet.add(
        sshd.host,
        sshd.port,
        username=wrong.name,
        auth="password",
        credential_id=await fleet.add_password(wrong),
    )
    await fleet.trust(target, key_of(sshd))

    assert await reason_of(pool, target) == "auth_failed"
    assert sum("Failed password" in line or "Failed keyboard" in line for line in sshd.log.splitlines()) <= 1


async def test_a_server_without_a_stored_credential_is_not_tried(pool: Pool, fleet: Fleet, sshd: Sshd) -> None:
    target = await fleet.add(sshd.host, sshd.port, username=sshd.username, auth="key")
    await fleet.trust(target, key_of(sshd))

    assert await reason_of(pool, target) == "credential_missing"
    assert sshd.connections_accepted() == 0


async def test_no_secret_stays_in_memory_after_logging_in(
    pool: Pool, fleet: Fleet, sshds: Sshds, password_user: PasswordUser
) -> None:
    sshd = sshds.start(options={"PasswordAuthentication": "yes"})
    target = await fleet.add(
        sshd.host,
        sshd.port,
        username=password_user.name,
        auth="password",
        credential_id=await fleet.add_password(password_user),
    )
    await fleet.trust(target, key_of(sshd))

    connection = await pool.connect(target)

    assert password_user.password not in _texts_within(connection)


def _texts_within(thing: Any, depth: int = 4) -> set[str]:
    if isinstance(thing, str):
        return {thing}
    if depth == 0:
        return set()
    inside: list[Any] = list(getattr(thing, "__dict__", {}).values())
    if isinstance(thing, dict):
        inside += thing.values()
    elif isinstance(thing, Sequence) and not isinstance(thing, bytes):
        inside += thing
    return set().union(*(_texts_within(each, depth - 1) for each in inside))


async def test_nothing_of_our_environment_reaches_the_host(pool: Pool, fleet: Fleet, sshds: Sshds) -> None:
    target = await fleet.add_sshd(sshds.start(options={**WATCHED, "AcceptEnv": "*"}))

    await output(pool, target)

    assert "req env" not in sshds.all[0].log
    assert "agent-req" not in sshds.all[0].log
    assert "x11-req" not in sshds.all[0].log


# --- host keys --------------------------------------------------------------------------------------------------------


async def test_an_unknown_host_key_is_offered_and_nobody_tries_to_log_in(
    pool: Pool, fleet: Fleet, sshds: Sshds
) -> None:
    sshd = sshds.start(options=WATCHED)
    target = await fleet.add_sshd(sshd, trusted=False)

    with pytest.raises(HostKeyUnknown) as unknown:
        await pool.connect(target)

    assert unknown.value.reason == "host_key_unknown"
    assert unknown.value.offered == key_of(sshd)
    assert await fleet.offered(target) == [key_of(sshd)]
    assert await fleet.pinned(target) == []
    await asyncio.to_thread(sshd.wait_for_log, r"Connection closed|Connection reset|Disconnected")
    assert sshd.authentication_attempts() == []


async def test_a_changed_host_key_is_refused_and_nobody_tries_to_log_in(pool: Pool, fleet: Fleet, sshds: Sshds) -> None:
    sshd = sshds.start(options=WATCHED)
    target = await fleet.add_sshd(sshd)
    old = key_of(sshd)
    sshd.swap_host_key()

    with pytest.raises(HostKeyChanged) as changed:
        await pool.connect(target)

    assert changed.value.reason == "host_key_changed"
    assert changed.value.offered == key_of(sshd)
    assert changed.value.pinned == (old,)
    assert await fleet.pinned(target) == [old]
    assert await fleet.offered(target) == [key_of(sshd)]
    await asyncio.to_thread(sshd.wait_for_log, r"Connection closed|Connection reset|Disconnected")
    assert sshd.authentication_attempts() == []


async def test_a_changed_host_key_stays_refused_until_a_person_accepts_it(pool: Pool, fleet: Fleet, sshd: Sshd) -> None:
    target = await fleet.add_sshd(sshd)
    sshd.swap_host_key()
    for _ in range(3):
        with pytest.raises(HostKeyChanged):
            await pool.connect(target)

    await fleet.trust(target, key_of(sshd))

    assert await output(pool, target) == b"here\n"
    assert await fleet.pinned(target) == [key_of(sshd)]


@pytest.mark.parametrize("accepted", ["ed25519", "ecdsa-256", "rsa"])
async def test_a_host_with_several_keys_is_judged_on_the_accepted_one(
    pool: Pool, fleet: Fleet, sshds: Sshds, accepted: str
) -> None:
    sshd = sshds.start(host_key_types=["ed25519", "ecdsa-256", "rsa"])
    target = await fleet.add_sshd(sshd, trusted=False)
    await fleet.trust(target, key_of(sshd, accepted))

    assert await output(pool, target) == b"here\n"


async def test_a_host_that_lost_the_accepted_key_has_changed(pool: Pool, fleet: Fleet, sshds: Sshds) -> None:
    sshd = sshds.start(host_key_types=["ed25519", "rsa"])
    target = await fleet.add_sshd(sshd)
    sshd.set_host_keys(["rsa"])

    with pytest.raises(HostKeyChanged) as changed:
        await pool.connect(target)

    assert changed.value.offered == key_of(sshd, "rsa")


async def test_a_scan_shows_every_host_key_without_logging_in(pool: Pool, fleet: Fleet, sshds: Sshds) -> None:
    sshd = sshds.start(host_key_types=["ed25519", "ecdsa-256", "rsa"], options=WATCHED)
    target = await fleet.add_sshd(sshd, trusted=False)

    keys = await pool.scan(target)

    assert keys == [key_of(sshd, kind) for kind in ("ed25519", "ecdsa-256", "rsa")]
    assert sshd.authentication_attempts() == []


async def test_a_scan_of_nothing_says_why(pool: Pool, fleet: Fleet, sshd: Sshd) -> None:
    target = await fleet.add_sshd(sshd)
    sshd.stop()

    with pytest.raises(Unreachable) as failure:
        await pool.scan(target)

    assert failure.value.reason == "connect_refused"


# --- jump hosts -------------------------------------------------------------------------------------------------------


async def test_a_server_is_reached_through_two_others(pool: Pool, fleet: Fleet, sshds: Sshds) -> None:
    first, second, last = sshds.start(), sshds.start(), sshds.start(options=WATCHED)
    through_one = await fleet.add_sshd(second, jump=await fleet.add_sshd(first))
    target = await fleet.add_sshd(last, jump=through_one)

    assert await output(pool, target) == b"here\n"
    assert await output(pool, through_one) == b"here\n"
    assert [each.connections_accepted() for each in (first, second, last)] == [1, 1, 1]


async def test_a_host_key_is_judged_behind_a_jump_as_well(pool: Pool, fleet: Fleet, sshds: Sshds) -> None:
    target = await fleet.add_sshd(sshds.start(), jump=await fleet.add_sshd(sshds.start()), trusted=False)

    with pytest.raises(HostKeyUnknown):
        await pool.connect(target)


async def test_a_jump_that_cannot_be_used_is_named(pool: Pool, fleet: Fleet, sshds: Sshds) -> None:
    jump = await fleet.add_sshd(sshds.start(), trusted=False)
    target = await fleet.add_sshd(sshds.start(), jump=jump)

    with pytest.raises(Unreachable) as failure:
        await pool.connect(target)

    assert failure.value.reason == "jump_failed"
    assert jump.name in str(failure.value)


async def test_a_server_that_its_jump_cannot_reach_is_told_apart(pool: Pool, fleet: Fleet, sshds: Sshds) -> None:
    behind = sshds.start()
    target = await fleet.add_sshd(behind, jump=await fleet.add_sshd(sshds.start()))
    behind.stop()

    assert await reason_of(pool, target) == "jump_failed"


async def test_a_jump_that_forbids_forwarding_is_told_apart(pool: Pool, fleet: Fleet, sshds: Sshds) -> None:
    jump = await fleet.add_sshd(sshds.start(options={"AllowTcpForwarding": "no"}))

    assert await reason_of(pool, await fleet.add_sshd(sshds.start(), jump=jump)) == "jump_failed"


async def test_a_server_that_is_its_own_jump_is_refused(pool: Pool, fleet: Fleet, sshd: Sshd) -> None:
    inner = await fleet.add_sshd(sshd)
    outer = Target(inner.server_id, "outer", inner.host, inner.port, "root", "key", inner.credential_id, jump=inner)

    assert await reason_of(pool, outer) == "jump_failed"


async def test_many_servers_behind_one_jump_do_not_wait_for_each_other(
    make_pool: MakePool, fleet: Fleet, sshds: Sshds
) -> None:
    """With one connection slot, the jump's own connection must not wait for a slot that its followers hold."""
    pool = make_pool(replace(PATIENT, connect_concurrency=1))
    jump = await fleet.add_sshd(sshds.start())
    behind = sshds.start()
    targets = [await fleet.add_sshd(behind, jump=jump) for _ in range(5)]

    outputs = await asyncio.gather(*(output(pool, target) for target in targets))

    assert outputs == [b"here\n"] * 5


# --- one connection for everybody -------------------------------------------------------------------------------------


async def test_everybody_shares_one_connection(pool: Pool, fleet: Fleet, sshd: Sshd) -> None:
    target = await fleet.add_sshd(sshd)

    outputs = await asyncio.gather(*(output(pool, target, f"echo {number}") for number in range(50)))

    assert outputs == [f"{number}\n".encode() for number in range(50)]
    assert sshd.connections_accepted() == 1


async def test_a_failure_is_shared_as_well(pool: Pool, fleet: Fleet) -> None:
    came, may_close = asyncio.Event(), asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        await may_close.wait()

    async with bad_host(hold) as host:
        target = await fleet.add(host.host, host.port)
        reasons = asyncio.gather(*(reason_of(pool, target) for _ in range(20)))
        await asyncio.wait_for(came.wait(), PATIENCE_S)
        may_close.set()

        assert await reasons == ["connection_lost"] * 20
        assert host.accepted == 1


async def test_when_the_first_to_ask_gives_up_the_others_still_get_their_connection(
    pool: Pool, fleet: Fleet, sshd: Sshd
) -> None:
    target = await fleet.add_sshd(sshd)
    first = asyncio.ensure_future(pool.connect(target))
    await asyncio.sleep(0)
    others = [asyncio.ensure_future(pool.connect(target)) for _ in range(3)]
    await asyncio.sleep(0)

    first.cancel()

    connections = await asyncio.gather(*others)
    assert len({id(connection) for connection in connections}) == 1
    with contextlib.suppress(asyncio.CancelledError):
        await first


async def test_only_so_many_connections_are_opened_at_once(make_pool: MakePool, fleet: Fleet) -> None:
    pool = make_pool(replace(PATIENT, connect_concurrency=3))
    three, may_close = asyncio.Event(), asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if host.accepted == 3:
            three.set()
        await may_close.wait()

    async with bad_host(hold) as host:
        targets = [await fleet.add(host.host, host.port) for _ in range(12)]
        reasons = asyncio.gather(*(reason_of(pool, target) for target in targets))
        await asyncio.wait_for(three.wait(), PATIENCE_S)
        for _ in range(100):
            await asyncio.sleep(0)
        at_once = host.accepted
        may_close.set()

        assert await reasons == ["connection_lost"] * 12
        assert (at_once, host.accepted) == (3, 12)


async def test_a_lost_connection_is_told_to_its_channels_and_made_anew(pool: Pool, fleet: Fleet, sshd: Sshd) -> None:
    target = await fleet.add_sshd(sshd)
    closed: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
    await pool.open_channel(target, "cat", on_data=lambda data: None, on_closed=closed.set_result)

    sshd.drop_connections()

    assert await asyncio.wait_for(closed, PATIENCE_S) == "connection_lost"
    assert await output(pool, target) == b"here\n"
    assert sshd.connections_accepted() == 2


async def test_an_edited_server_gets_another_connection(pool: Pool, fleet: Fleet, sshds: Sshds) -> None:
    target = await fleet.add_sshd(sshds.start())
    await pool.connect(target)
    elsewhere = sshds.start(authorized_keys=[sshds.all[0].login_public_key])
    edited = Target(
        target.server_id, "edited", elsewhere.host, elsewhere.port, target.username, "key", target.credential_id
    )
    await fleet.trust(edited, key_of(elsewhere))

    await output(pool, edited)

    assert elsewhere.connections_accepted() == 1
    await asyncio.to_thread(sshds.all[0].wait_for_log, r"Connection closed|Connection reset|Disconnected|disconnect")


async def test_a_renamed_server_keeps_its_connection_and_what_runs_on_it(
    pool: Pool, fleet: Fleet, sshds: Sshds
) -> None:
    jump = await fleet.add_sshd(sshds.start(options={"AllowTcpForwarding": "yes"}))
    target = await fleet.add_sshd(sshds.start(), jump=jump)
    shown, closed = bytearray(), asyncio.Event()
    channel = await pool.open_channel(target, "cat", shown.extend, lambda _: closed.set())
    before = await pool.connect(target)

    renamed = replace(target, name="another name", jump=replace(jump, name="a third"))
    assert await pool.connect(renamed) is before
    assert await output(pool, renamed) == b"here\n"
    channel.write(b"still there")
    await until(lambda: b"still there" in shown)
    assert not closed.is_set()
    channel.close()


async def test_a_dropped_server_is_disconnected(pool: Pool, fleet: Fleet, sshd: Sshd) -> None:
    target = await fleet.add_sshd(sshd)
    closed: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
    await pool.open_channel(target, "cat", on_data=lambda data: None, on_closed=closed.set_result)

    await pool.drop(target.server_id)

    assert await asyncio.wait_for(closed, PATIENCE_S) is None
    await asyncio.to_thread(sshd.wait_for_log, r"disconnect|Disconnected|Connection closed|Connection reset")


async def test_an_attempt_under_way_comes_to_nothing_when_its_server_is_dropped(
    pool: Pool, fleet: Fleet, sshd: Sshd
) -> None:
    target = await fleet.add_sshd(sshd)
    sshd.freeze()
    connecting = asyncio.ensure_future(pool.connect(target))
    await asyncio.sleep(0)

    await pool.drop(target.server_id)
    sshd.thaw()

    with pytest.raises(Unreachable):
        await connecting
    assert await output(pool, target) == b"here\n"


async def test_a_channel_that_its_asker_gave_up_is_closed(pool: Pool, fleet: Fleet, sshd: Sshd) -> None:
    """Else it would stay open on the host and count against its MaxSessions."""
    target = await fleet.add_sshd(sshd)
    await pool.connect(target)

    for number in range(3):
        sshd.freeze()
        endless = pool.open_channel(target, "cat", on_data=lambda data: None, on_closed=lambda reason: None)
        opening = asyncio.ensure_future(endless)
        await asyncio.sleep(0)
        opening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await opening
        sshd.thaw()
        assert await output(pool, target) == b"here\n"
        await until(lambda both=2 * (number + 1): sshd.log.count("Close session: ") == both)


# --- what can be wrong before SSH -------------------------------------------------------------------------------------


async def reason_of(pool: Pool, target: Target) -> str:
    with pytest.raises(Unreachable) as failure:
        await pool.connect(target)
    return failure.value.reason


async def test_a_port_where_nothing_listens_refuses(pool: Pool, fleet: Fleet, sshd: Sshd) -> None:
    target = await fleet.add_sshd(sshd)
    sshd.stop()

    assert await reason_of(pool, target) == "connect_refused"


async def test_a_name_that_does_not_exist_is_a_dns_failure(pool: Pool, fleet: Fleet) -> None:
    assert await reason_of(pool, await fleet.add("no-such-host.invalid", 22)) == "dns_failed"


@pytest.mark.parametrize(
    "options",
    [
        {"KexAlgorithms": "diffie-hellman-group14-sha1"},
        {"Ciphers": "aes128-cbc"},
        {"Ciphers": "aes128-ctr", "MACs": "hmac-sha1"},
        {"HostKeyAlgorithms": "ssh-rsa"},
    ],
    ids=["key exchange", "cipher", "mac", "host key"],
)
async def test_a_host_that_offers_only_weak_algorithms_is_refused(
    pool: Pool, fleet: Fleet, sshds: Sshds, options: dict[str, str]
) -> None:
    sshd = sshds.start(host_key_types=["rsa"], options=options)
    target = await fleet.add_sshd(sshd, trusted=False)
    await fleet.trust(target, key_of(sshd, "rsa"))

    assert await reason_of(pool, target) == "weak_algorithms"
