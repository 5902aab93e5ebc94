"""What the database says about servers before we connect to them: accepted host keys, and how to log in.

Reading it costs as much CPU as the SSH handshake itself, so whoever connects at the same time is read for together: the
first one waits a moment for company, and one transaction serves all.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.db.engine import Database
from server_monitor.db.tables import host_keys
from server_monitor.errors import Failure, NotFound, Unavailable
from server_monitor.ssh import vault as vaults
from server_monitor.ssh.hostkeys import HostKey
from server_monitor.ssh.vault import Secret, Vault, VaultUnreadable

MOST_TOGETHER = 200
COMPANY_FROM = 8  # with so many under way, a moment's wait finds others
COMPANY_WAIT_S = 0.02


@dataclass(frozen=True, slots=True)
class Known:
    """About one server. `secret` is None without an accepted key, because then nobody logs in."""

    pinned: Sequence[HostKey]
    offered: Sequence[HostKey]
    secret: Secret | None = field(repr=False)


@dataclass(slots=True, eq=False)
class _Question:
    server_id: str
    credential_id: str | None
    answer: "asyncio.Future[Known]"


class Logins:
    def __init__(self, db: Database, vault: Vault) -> None:
        self._db = db
        self._vault = vault
        self._waiting: list[_Question] = []
        self._asking = 0
        self._turn = asyncio.Lock()

    async def known(self, server_id: str, credential_id: str | None) -> Known:
        """Raises NotFound for a credential that is gone, VaultUnreadable for one that does not open, Unavailable."""
        question = _Question(server_id, credential_id, asyncio.get_running_loop().create_future())
        self._waiting.append(question)
        self._asking += 1
        try:
            async with self._turn:
                if not question.answer.done():
                    await self._answer_together(question)
            return question.answer.result()
        finally:
            self._asking -= 1
            question.answer.cancel()
            if question in self._waiting:
                self._waiting.remove(question)

    async def _answer_together(self, first: _Question) -> None:
        if self._asking >= COMPANY_FROM:
            await asyncio.sleep(COMPANY_WAIT_S)
        others = [question for question in self._waiting if question is not first]
        together = [first, *others[: MOST_TOGETHER - 1]]
        try:
            async with self._db.reading() as conn:
                keys = await _keys(conn, {each.server_id for each in together})
                accepted = [each for each in together if keys[each.server_id]["pinned"]]
                wanted = {each.credential_id for each in accepted if each.credential_id}
                secrets = await vaults.load_many(conn, self._vault, wanted)
        except Unavailable as error:
            _settle(together, error)
            return
        for question in together:
            _settle([question], _found(question, keys[question.server_id], secrets))


def _settle(questions: Sequence[_Question], outcome: Known | Failure) -> None:
    for question in questions:
        if question.answer.done():
            continue  # Whoever asked has gone.
        if isinstance(outcome, Failure):
            question.answer.set_exception(outcome)
        else:
            question.answer.set_result(outcome)


def _found(
    question: _Question, keys: Mapping[str, Sequence[HostKey]], secrets: Mapping[str, Secret | VaultUnreadable]
) -> Known | Failure:
    if not keys["pinned"] or question.credential_id is None:
        return Known(keys["pinned"], keys["offered"], None)
    secret = secrets.get(question.credential_id)
    if secret is None:
        return NotFound("credential", question.credential_id)
    return secret if isinstance(secret, VaultUnreadable) else Known(keys["pinned"], keys["offered"], secret)


async def _keys(conn: AsyncConnection, server_ids: Collection[str]) -> Mapping[str, Mapping[str, list[HostKey]]]:
    c = host_keys.c
    found = await conn.execute(
        select(c.server_id, c.state, c.key_type, c.fingerprint, c.public_key)
        .where(c.server_id.in_(server_ids))
        .order_by(c.seen_at, c.fingerprint)
    )
    keys: dict[str, dict[str, list[HostKey]]] = defaultdict(lambda: {"pinned": [], "offered": []})
    for row in found:
        keys[row.server_id][row.state].append(HostKey(row.key_type, row.fingerprint, row.public_key))
    return keys
