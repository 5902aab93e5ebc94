"""The log as one file that can be checked by whoever holds the public key, on a machine with nothing but Python.

It begins with the first record that the database still holds, or with the first of all, out of the archive. It ends at
a signed checkpoint, made for it when there is news. Besides the records and checkpoints it carries the verifier and a
page for the person who opens it; `audit/segment.py` is the format.
"""

import asyncio
import base64
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import cells, checkpoints, export, intents, note, standalone, tree
from server_monitor.audit.chain import AuditActor, AuditTarget
from server_monitor.audit.checkpoints import Signer
from server_monitor.audit.search import Filters
from server_monitor.audit.segment import Manifest, Packer
from server_monitor.audit.whole import Pruned
from server_monitor.db.engine import Database
from server_monitor.db.ids import new_id
from server_monitor.db.tables import audit_checkpoints, audit_head, audit_records

BATCH_RECORDS = 1000
MEDIA_TYPE = "application/gzip"

_VERIFIER = Path(standalone.__file__).read_bytes()

README = """\
This is the audit log of one installation of server-monitor, with what is needed to check it.

To check it you need two things that must NOT come out of this bundle:

  key.txt         the public key: one line that the operator gave you earlier, best when the console was set up
  checkpoint.txt  any checkpoint of this log that you kept from an earlier day (better with than without)

Then, with Python 3.9 or newer and no network:

  python3 verify.py BUNDLE.tar.gz --public-key key.txt --checkpoint checkpoint.txt

and, for an export that somebody gave you, as it was downloaded:

  python3 verify.py BUNDLE.tar.gz --public-key key.txt --csv EXPORT.csv

It says "intact" three times and ends with exit code 0 when nothing in the log was changed, removed or reordered. Take
verify.py from a release of server-monitor rather than from here when you do not trust who made this bundle. The file
vkeys.txt says which key signed; compare it with yours, never use it instead of yours.

records/*.ndjson     one record a line, in order: the very bytes that were hashed
checkpoints/*.txt    signed notes (c2sp.org/signed-note): size and root of the log at some moment
manifest.json        which records these are, and the state of the tree before the first
"""


@dataclass(slots=True)
class Bundle:
    """A bundle whose start is recorded. Read `chunks`, and say `delivered` once they have arrived."""

    conn: AsyncConnection
    manifest: Manifest
    vkey: str
    checkpoint: str  # the signed note of its end
    pruned: Pruned | None = None  # what comes out of the archive, when it begins there
    rows: int = 0
    unreadable: int = 0  # it carries whatever there is, and the verifier says what is wrong with it
    size_bytes: int = 0
    was_delivered: bool = False
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    @property
    def headers(self) -> dict[str, str]:
        """What is known before the first byte."""
        return {
            "X-Row-Count": str(self.manifest.end_seq - self.manifest.first_seq),
            "X-Checkpoint": base64.b64encode(self.checkpoint.encode()).decode(),
        }

    def delivered(self) -> None:
        self.was_delivered = True

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The file, piece by piece, from one snapshot."""
        packer = Packer()
        beside = (
            ("README.txt", README.encode()),
            ("verify.py", _VERIFIER),
            (
                "vkeys.txt",
                f"# Who signed. Compare it with the key that you hold; do not trust it.\n{self.vkey}\n".encode(),
            ),
        )
        yield self._counted(packer.begin(self.manifest, beside))
        for packed in packer.checkpoints(await self._notes()):
            yield self._counted(packed)
        async for bodies in self._bodies():
            packed = await asyncio.to_thread(packer.records, bodies)
            self.rows += len(bodies)
            if packed:
                yield self._counted(packed)
        yield self._counted(await asyncio.to_thread(packer.end))

    async def _notes(self) -> list[str]:
        """Each different note once: the hourly ones of a quiet log are the same bytes."""
        archived = [] if self.pruned is None else [text async for text in self.pruned.notes()]
        c = audit_checkpoints.c
        wanted = select(c.size, c.note).distinct().order_by(c.size, c.note)
        wanted = wanted.where(c.size >= self._first_live, c.size <= self.manifest.end_seq)
        return [*archived, *(row.note for row in (await self.conn.execute(wanted)).all())]

    @property
    def _first_live(self) -> int:
        return self.manifest.first_seq if self.pruned is None else self.pruned.end_seq

    async def _bodies(self) -> AsyncIterator[list[bytes]]:
        if self.pruned is not None:
            async for archived in self.pruned.records(Filters()):
                yield [body for _, body in archived]
        c = audit_records.c
        following, end = self._first_live, self.manifest.end_seq
        while True:
            wanted = select(c.seq, c.body).where(c.seq >= following, c.seq < end).order_by(c.seq).limit(BATCH_RECORDS)
            rows = (await self.conn.execute(wanted)).all()
            if not rows:
                return
            following = rows[-1].seq + 1
            yield [cells.as_bytes(row.body) for row in rows]

    def _counted(self, chunk: bytes) -> bytes:
        self.size_bytes += len(chunk)
        self.digest.update(chunk)
        return chunk


@asynccontextmanager
async def started(
    db: Database, signer: Signer, *, actor: AuditActor, is_whole: bool = False, url: str | None = None
) -> AsyncIterator[Bundle]:
    """A bundle that is recorded; leaving the block records how it ended. The caller has authorised `actor`.

    `is_whole` has it begin with the first record ever, out of the archive, which is at `url` if it was moved.

    Appends `audit.export`, committed before this yields and part of the bundle, and `audit.export_finished`.
    """
    target = AuditTarget(export.TARGET, new_id())
    meta = {"format": "bundle", "filters": {}, "with_archive": is_whole}
    await intents.begin(db, "audit.export", actor, target, meta)
    bundle: Bundle | None = None
    try:
        async with db.transaction() as conn:
            signed = await checkpoints.make(conn, signer, "critical", datetime.now(UTC))
        async with db.reading() as conn:
            head = (await conn.execute(select(audit_head.c.min_index, audit_head.c.prefix))).one()
            origin = note.read(signed.note)[0].origin
            pruned = await Pruned.look(conn, url) if is_whole else None
            first, prefix = (0, ()) if is_whole else (head.min_index, tree.split(head.prefix or b""))
            manifest = Manifest(origin, first, signed.size, prefix, signed.root)
            bundle = Bundle(conn, manifest, note.verifier_of(origin, signer.key).vkey, signed.note, pruned)
            yield bundle
    finally:
        await export.record_end(db, actor, target, bundle)


def filename(node: str, now: datetime) -> str:
    return f"audit-{node[:8]}-{now:%Y%m%d}.tar.gz"
