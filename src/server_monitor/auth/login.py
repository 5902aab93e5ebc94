"""Logging in: the steps, in an order that nobody can shorten.

1. Whoever has to wait is told so, at the price of one read.
2. A place for hashing is taken, or the try is refused: a flood does not queue up.
3. The try is counted as a failure before it is made (`throttle.charge`).
4. The password is checked, with the same work whether the user exists or not.
5. Right: the count is taken back and the session begins, in one transaction with its audit record. Wrong: the refusal
   is recorded, up to so many a minute; the rest is counted and recorded as one number.
"""

import asyncio
import secrets
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pydantic import SecretStr
from sqlalchemy import RowMapping, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import log as audit
from server_monitor.audit.chain import AuditTarget, Event
from server_monitor.auth import passwords, sessions, throttle, users
from server_monitor.auth.actor import ANONYMOUS, Actor, ActorKind, audited
from server_monitor.auth.passwords import KNOWN, STRANGERS, PasswordHash, Place
from server_monitor.auth.sessions import Started
from server_monitor.db import tables
from server_monitor.db.engine import Database
from server_monitor.errors import Denied, Invalid, TooMany, Unauthenticated, Unavailable
from server_monitor.telemetry import metrics
from server_monitor.telemetry.logs import logger

log = logger(__name__)

TALLY_INTERVAL_S = 60.0
FRESH = timedelta(minutes=15)  # so long after a login nobody is asked for the password again
_RECORDED_FOR_ADDRESS = 10  # failures a minute that get a record each
_RECORDED_IN_ALL = 100
_COUNTED_ADDRESSES = 10_000


class LoginFailed(Unauthenticated):
    """Name or password is wrong, or the account is disabled: which of them is not said."""

    code = "login_failed"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a try comes from.

    `browser` is the value of the cookie that marks a browser known for a user, `session` that of the session in which
    the browser still is; a login ends it.
    """

    ip: str | None
    user_agent: str | None = None
    browser: str | None = field(default=None, repr=False)
    session: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """A login that was right. Both cookies' values are known here only."""

    started: Started
    browser: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Tally:
    """Refused logins of a minute that got no record of their own."""

    began_at: datetime
    wrong: int
    throttled: int
    addresses: int


class RefusalTally:
    """Decides which refusals of one minute get a record of their own and counts the others. No I/O."""

    def __init__(self) -> None:
        self._began_at: datetime | None = None
        self._recorded: Counter[str] = Counter()
        self._wrong = 0
        self._throttled = 0
        self._addresses: set[str] = set()

    def may_record(self, address: str, now: datetime) -> bool:
        """Whether this wrong login is recorded by itself; otherwise it is counted."""
        self._begin(now)
        if self._recorded[address] < _RECORDED_FOR_ADDRESS and self._recorded.total() < _RECORDED_IN_ALL:
            self._recorded[address] += 1
            return True
        self._wrong += 1
        self._note(address)
        return False

    def count_throttled(self, address: str, now: datetime) -> None:
        self._begin(now)
        self._throttled += 1
        self._note(address)

    def result(self) -> Tally | None:
        """What was counted; None when there was nothing."""
        if self._began_at is None or not self._wrong + self._throttled:
            return None
        return Tally(self._began_at, self._wrong, self._throttled, len(self._addresses))

    def _begin(self, now: datetime) -> None:
        self._began_at = self._began_at or now

    def _note(self, address: str) -> None:
        if len(self._addresses) < _COUNTED_ADDRESSES:
            self._addresses.add(address)


@dataclass(frozen=True, slots=True)
class _Account:
    """What the first look found out about whoever tries."""

    user_id: str | None
    name: str | None
    password_hash: PasswordHash | None = field(repr=False)
    is_disabled: bool
    is_known: bool
    keys: tuple[str, ...]


class Logins:
    """The door of one console. `run` must be running for refusals that were only counted to be recorded."""

    def __init__(self, db: Database, secret: SecretStr) -> None:
        self._db = db
        self._secret = secret
        self._tally = RefusalTally()

    async def login(self, name: str, password: str, source: Source, now: datetime | None = None) -> LoggedIn:
        """Begin a session. Appends `auth.login`, without which nobody gets in.

        Raises LoginFailed, and TooMany when the try was not even looked at.
        """
        now = now or datetime.now(UTC)
        account = await self._look(name, source, now)
        with (KNOWN if account.is_known else STRANGERS).place() as place:
            await self._charge(account, source, now)
            if not await place.check(account.password_hash, password) or account.is_disabled:
                await self._refuse(account, source, now)
                raise LoginFailed("The name or the password is wrong.")
            new_hash = await self._strengthened(account, password, place)
        return await self._begin(account, new_hash, source, now)

    async def confirm(self, actor: Actor, password: str | None, source: Source, now: datetime | None = None) -> None:
        """Make sure that it is still the same person, before they change how they log in.

        A session that began less than 15 minutes ago is enough, or the password. Raises Invalid when it is wrong.
        """
        now = now or datetime.now(UTC)
        if actor.kind is not ActorKind.USER or actor.session_id is None:
            raise Denied("This takes a person who is logged in at a browser.")
        if password is None:
            async with self._db.reading() as conn:
                if now - await sessions.started_at(conn, actor.session_id) < FRESH:
                    return
            raise Invalid.one("password", "is needed: you logged in more than 15 minutes ago")
        await self._confirm_password(actor, password, "password", source, now)

    async def change_password(
        self, actor: Actor, current: str, new: str, source: Source, now: datetime | None = None
    ) -> None:
        """Give the actor another password and end their other sessions. Appends `user.password`."""
        now = now or datetime.now(UTC)
        if actor.kind is not ActorKind.USER or actor.id is None:
            raise Denied("This takes a person who is logged in at a browser.")
        passwords.check(new, name=actor.name, role=actor.role, field="new")
        await self._confirm_password(actor, current, "current", source, now)
        password_hash = await passwords.hash_password(new)
        async with self._db.transaction() as conn:
            await users.set_own_password(conn, password_hash, actor=actor, now=now)

    async def run(self) -> None:
        """Each minute: record how many refusals were only counted, and forget old failures. Runs until cancelled."""
        try:
            while True:
                await asyncio.sleep(TALLY_INTERVAL_S)
                await self.settle()
        finally:
            await self.settle()

    async def settle(self, now: datetime | None = None) -> None:
        """Do at once what `run` does each minute."""
        now = now or datetime.now(UTC)
        tally = self._tally.result()
        self._tally = RefusalTally()
        try:
            async with self._db.transaction() as conn:
                await throttle.forget_old(conn, now)
                if tally is not None:
                    await audit.append(conn, _tally_event(tally, now))
        except Unavailable:
            log.warning("login_refusals_not_recorded", tally=str(tally))

    async def _look(self, name: str, source: Source, now: datetime) -> _Account:
        async with self._db.reading() as conn:
            row = await _find_user(conn, name)
            browser, is_known_address = None, False
            if row is not None:
                browser = throttle.known_browser(self._secret, row["id"], source.browser, now)
                is_known_address = await sessions.has_live_session(conn, row["id"], source.ip, now)
            keys = throttle.keys(self._secret, name, source.ip, browser=browser, is_known_address=is_known_address)
            wait_s = throttle.blocked_s(await throttle.read(conn, keys), now)
        if wait_s:
            self._throttled(source, wait_s, now)
        return _Account(
            user_id=row["id"] if row else None,
            name=row["name"] if row else None,
            password_hash=row["password_hash"] if row else None,
            is_disabled=row is not None and row["disabled_at"] is not None,
            is_known=browser is not None or is_known_address,
            keys=keys,
        )

    async def _charge(self, account: _Account, source: Source, now: datetime) -> None:
        async with self._db.transaction() as conn:
            wait_s = await throttle.charge(conn, account.keys, now)
        if wait_s:
            self._throttled(source, wait_s, now)

    def _throttled(self, source: Source, wait_s: int, now: datetime) -> None:
        metrics.logins.labels("throttled").inc()
        self._tally.count_throttled(throttle.network_of(source.ip), now)
        raise TooMany("There were too many wrong tries; wait a moment and try again.", wait_s)

    async def _record(self, refusal: Event, source: Source, now: datetime) -> None:
        if not self._tally.may_record(throttle.network_of(source.ip), now):
            return
        try:
            async with self._db.transaction() as conn:
                await audit.append(conn, refusal)
        except Unavailable:
            # A refusal stays a refusal, recorded or not.
            log.warning("login_refusal_not_recorded", reason=refusal.reason)

    async def _refuse(self, account: _Account, source: Source, now: datetime) -> None:
        metrics.logins.labels("failed").inc()
        await self._record(_refusal(account), source, now)

    async def _strengthened(self, account: _Account, password: str, place: Place) -> PasswordHash | None:
        """A hash with today's parameters, when the stored one has others."""
        assert account.password_hash is not None
        return await place.hash(password) if passwords.needs_new_hash(account.password_hash) else None

    async def _begin(self, account: _Account, new_hash: PasswordHash | None, source: Source, now: datetime) -> LoggedIn:
        assert account.user_id is not None
        browser_id = throttle.known_browser(self._secret, account.user_id, source.browser, now)
        async with self._db.transaction() as conn:
            await _still_the_same(conn, account)
            await throttle.refund(conn, account.keys)
            if new_hash is not None:
                await conn.execute(
                    update(tables.users).where(tables.users.c.id == account.user_id).values(password_hash=new_hash)
                )
            replaced = await sessions.drop(conn, source.session)
            started = await sessions.start(conn, account.user_id, ip=source.ip, user_agent=source.user_agent, now=now)
            await audit.append(conn, login_event(started.actor, replaced))
        metrics.logins.labels("succeeded").inc()
        browser = throttle.browser_cookie(self._secret, account.user_id, browser_id or secrets.token_hex(8), now)
        return LoggedIn(started, browser)

    async def _confirm_password(
        self, actor: Actor, password: str, field_name: str, source: Source, now: datetime
    ) -> None:
        """Raise Invalid unless this is the actor's password. Guessing by whoever holds the session is slowed down."""
        keys = (throttle.session_key(str(actor.session_id)),)
        async with self._db.reading() as conn:
            row = await _find_user(conn, actor.name)
        with KNOWN.place() as place:
            async with self._db.transaction() as conn:
                wait_s = await throttle.charge(conn, keys, now)
            if wait_s:
                self._throttled(source, wait_s, now)
            if row is None or not await place.check(row["password_hash"], password):
                target = AuditTarget("user", str(actor.id), actor.name)
                refusal = Event("auth.login_failed", audited(actor), target, "failure", "wrong_password")
                await self._record(refusal, source, now)
                raise Invalid.one(field_name, "is not your password")
        async with self._db.transaction() as conn:
            await throttle.refund(conn, keys)


def login_event(actor: Actor, replaced_session: str | None = None) -> Event:
    meta = {"replaced_session": replaced_session} if replaced_session else {}
    return Event("auth.login", audited(actor), AuditTarget("session", str(actor.session_id)), meta=meta)


async def _find_user(conn: AsyncConnection, name: str) -> RowMapping | None:
    found = await conn.execute(select(tables.users).where(tables.users.c.name_folded == users.lookup_form(name)))
    return found.mappings().one_or_none()


async def _still_the_same(conn: AsyncConnection, account: _Account) -> None:
    """Raise LoginFailed when the user was disabled, deleted or given another password while we were hashing."""
    # Locked: whoever disables the user at this moment either finds the new session and ends it, or is seen here.
    found = await conn.execute(
        select(tables.users.c.id)
        .where(
            tables.users.c.id == account.user_id,
            tables.users.c.password_hash == account.password_hash,
            tables.users.c.disabled_at.is_(None),
        )
        .with_for_update()
    )
    if found.first() is None:
        raise LoginFailed("The name or the password is wrong.")


def _refusal(account: _Account) -> Event:
    """The record of a refused login. A name that nobody has is left out: it is often a password in the wrong field."""
    if account.user_id is None:
        reason, target = "unknown_user", None
    else:
        reason = "disabled" if account.is_disabled else "wrong_password"
        target = AuditTarget("user", account.user_id, account.name)
    return Event("auth.login_failed", audited(ANONYMOUS), target, outcome="failure", reason=reason)


def _tally_event(tally: Tally, now: datetime) -> Event:
    meta = {
        "count": tally.wrong + tally.throttled,
        "wrong": tally.wrong,
        "throttled": tally.throttled,
        "addresses": tally.addresses,
        "from": tally.began_at.isoformat(),
        "to": now.isoformat(),
    }
    return Event("auth.login_failed", audited(ANONYMOUS), outcome="failure", reason="many", meta=meta)
