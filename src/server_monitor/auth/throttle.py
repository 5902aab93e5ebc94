"""How guessing passwords is slowed down, without letting strangers lock anybody out.

Failures are counted under up to three keys, and each key that has collected too many makes the next try wait, twice as
long after every further one, up to a bound:

- `pair`: this account from this address. Someone who guesses at one account is stopped here.
- `address`: this address, whatever the account. Someone who guesses at many accounts is stopped here.
- `account`: this account, wherever from. Many machines that guess together at one account are slowed here; the bound is
  short, because its owner at a new place waits with them.

Whoever is known for the account is spared what strangers did: an address from which its user is logged in right now
counts only under its own `pair`, and a browser in which its user has logged in before (it holds a signed cookie) only
under a key of its own, `browser`.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from pydantic import SecretStr
from sqlalchemy import delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.auth import users
from server_monitor.db.tables import fold_name, login_failures

BROWSER_COOKIE = "server_monitor_browser"
BROWSER_LIFE = timedelta(days=180)


@dataclass(frozen=True, slots=True)
class Bound:
    """So many failures are free; then the wait doubles from one second up to the longest."""

    free: int
    longest_wait_s: int
    forgotten_after: timedelta


BOUNDS: Mapping[str, Bound] = {
    "pair": Bound(free=5, longest_wait_s=900, forgotten_after=timedelta(hours=24)),
    "browser": Bound(free=5, longest_wait_s=900, forgotten_after=timedelta(hours=24)),
    "session": Bound(free=5, longest_wait_s=900, forgotten_after=timedelta(hours=24)),
    "address": Bound(free=50, longest_wait_s=300, forgotten_after=timedelta(hours=1)),
    "account": Bound(free=20, longest_wait_s=30, forgotten_after=timedelta(hours=1)),
}


@dataclass(frozen=True, slots=True)
class Failures:
    """What is stored under a key."""

    count: int
    last_failed_at: datetime
    blocked_until: datetime | None


def wait_s(kind: str, failures: int) -> int:
    """How long the next try has to wait after so many failures."""
    bound = BOUNDS[kind]
    excess = failures - bound.free
    if excess < 0:
        return 0
    return min(bound.longest_wait_s, 1 << min(excess, 30))


def blocked_s(found: Mapping[str, Failures], now: datetime) -> int:
    """How many seconds from now until a try under all these keys is allowed; 0: at once."""
    waits = [(f.blocked_until - now).total_seconds() for f in found.values() if f.blocked_until is not None]
    longest = max(waits, default=0.0)
    return 0 if longest <= 0 else int(longest) + 1


def one_more(key: str, found: Failures | None, now: datetime) -> Failures:
    """What to store under the key after another failure."""
    kind = key.partition(":")[0]
    is_fresh = found is not None and now - found.last_failed_at < BOUNDS[kind].forgotten_after
    count = (found.count if found is not None and is_fresh else 0) + 1
    wait = wait_s(kind, count)
    return Failures(count, now, now + timedelta(seconds=wait) if wait else None)


def keys(
    secret: SecretStr, account: str, ip: str | None, *, browser: str | None, is_known_address: bool
) -> tuple[str, ...]:
    """The keys under which a try is counted. `browser` is the id of a browser known for this account."""
    # Folding takes the square of the length of some texts, and strangers write this one; nobody's name is longer.
    folded = fold_name(account) if len(account) <= users.LONGEST_NAME else account
    # Keyed, because people type passwords into the field for the name.
    name = _signature(secret, "account", folded)[:32]
    if browser is not None:
        return (f"browser:{name}:{browser}",)
    address = network_of(ip)
    pair = f"pair:{name}:{address}"
    if is_known_address:
        return (pair,)
    return (pair, f"address:{address}", f"account:{name}")


def session_key(session_id: str) -> str:
    """The key for whoever holds a session and is asked for its user's password again."""
    return f"session:{session_id}"


def network_of(ip: str | None) -> str:
    """What counts as one address: an IPv4 address, or the /64 that an IPv6 user has all for themselves."""
    try:
        address: IPv4Address | IPv6Address = ip_address(ip or "")
    except ValueError:
        return "unknown"
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            return str(ip_network((address.packed[:8] + bytes(8), 64)))
        address = address.ipv4_mapped
    return str(address)


def browser_cookie(secret: SecretStr, user_id: str, browser_id: str, now: datetime) -> str:
    """The mark of a browser in which this user has logged in. It opens nothing: the password is still asked for."""
    issued = f"{browser_id}.{int(now.timestamp())}"
    return f"{issued}.{_signature(secret, 'browser', f'{user_id}.{issued}')}"


def known_browser(secret: SecretStr, user_id: str, cookie: str | None, now: datetime) -> str | None:
    """The id of the browser that holds this cookie, if it was made for this user and is not too old."""
    if cookie is None or len(cookie) > 200 or not cookie.isascii():
        return None
    issued, _, signature = cookie.rpartition(".")
    if not hmac.compare_digest(signature, _signature(secret, "browser", f"{user_id}.{issued}")):
        return None
    browser_id, _, issued_at = issued.partition(".")
    return browser_id if now.timestamp() - int(issued_at) < BROWSER_LIFE.total_seconds() else None


async def read(conn: AsyncConnection, wanted: Sequence[str]) -> dict[str, Failures]:
    rows = await conn.execute(select(login_failures).where(login_failures.c.key.in_(wanted)))
    return {row.key: Failures(row.failures, row.last_failed_at, row.blocked_until) for row in rows}


async def charge(conn: AsyncConnection, wanted: Sequence[str], now: datetime) -> int:
    """Count a try as a failure before it is made, so that a thousand at once are no way around the count.

    Returns how many seconds to wait, and then nothing was counted; 0: go ahead, and `refund` if the password is right.
    """
    # In one order, whoever asks, so that two tries cannot wait for each other for ever.
    for key in sorted(wanted):
        await _hold(conn, key, now)
    found = await read(conn, wanted)
    if seconds := blocked_s(found, now):
        return seconds
    for key in wanted:
        after = one_more(key, found[key], now)
        await conn.execute(
            update(login_failures)
            .where(login_failures.c.key == key)
            .values(failures=after.count, last_failed_at=now, blocked_until=after.blocked_until)
        )
    return 0


async def refund(conn: AsyncConnection, wanted: Sequence[str]) -> None:
    """Forget what `charge` counted for a try that was right, and the earlier failures of the same pair or browser."""
    for key in sorted(wanted):
        row = login_failures.c.key == key
        if key.startswith(("pair:", "browser:", "session:")):
            await conn.execute(delete(login_failures).where(row))
        else:
            await conn.execute(
                update(login_failures)
                .where(row, login_failures.c.failures > 0)
                .values(failures=login_failures.c.failures - 1, blocked_until=None)
            )


async def forget_old(conn: AsyncConnection, now: datetime) -> None:
    """Drop what no longer counts, so that guessing cannot fill the table for ever."""
    for kind, bound in BOUNDS.items():
        await conn.execute(
            delete(login_failures).where(
                login_failures.c.key.startswith(f"{kind}:", autoescape=True),
                login_failures.c.last_failed_at < now - bound.forgotten_after,
            )
        )


async def _hold(conn: AsyncConnection, key: str, now: datetime) -> None:
    """Make the key's row when there is none, and keep others from it until the transaction ends."""
    dialect = postgresql if conn.dialect.name == "postgresql" else sqlite
    new = dialect.insert(login_failures).values(key=key, failures=0, last_failed_at=now)
    await conn.execute(new.on_conflict_do_update(index_elements=["key"], set_={"key": new.excluded.key}))


def _signature(secret: SecretStr, purpose: str, text: str) -> str:
    key = secret.get_secret_value().encode()
    return hmac.new(key, f"{purpose}\x00{text}".encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
