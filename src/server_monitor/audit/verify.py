"""Judges a log from its bytes alone, trusting nothing that comes with it but the keys it is given. Pure.

Three verdicts, each with its own findings:

- *integrity*: each record has the one canonical form, its place and its search columns; the tree over the records has
  the root of every checkpoint.
- *completeness*: nothing is missing between the first record and the last; nothing is shorter than a checkpoint; what
  comes before the first record has been pruned and says so.
- *authenticity*: the checkpoints are signed by a key that the caller trusts.

Whatever the input holds, it ends in a report: hostile bytes are findings, not exceptions. What cannot be reached is no
finding: nothing is called broken because a store was silent, and nothing intact. Memory does not grow with the log.
docs/reference/audit-format.md is the specification; `audit/standalone.py` judges the same with nothing but Python's
standard library.
"""

import hashlib
import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from server_monitor.audit import note, reading, tree
from server_monitor.audit.nodes import Kept, Nodes, Repair
from server_monitor.audit.note import Checkpoint, Verifier
from server_monitor.audit.reading import COLUMNS, Columns
from server_monitor.errors import Invalid, Unavailable

Row = tuple[Any, ...]
"""(seq, body, *COLUMNS) as stored; (None, body) where a record has no place but its own bytes."""

Signature = tuple[str, bytes, bytes]
"""(name, key id, signature)"""

FINDINGS_KEPT = 50  # of each verdict; the others are counted
UNSIGNED_SPAN = timedelta(hours=1)  # more than this at the end of a log without a signature proves nothing
OUTSIDE_AGE = timedelta(hours=24)
CLOCK_STEP = timedelta(seconds=1)


class Aspect(StrEnum):
    INTEGRITY = "integrity"
    COMPLETENESS = "completeness"
    AUTHENTICITY = "authenticity"


class Verdict(StrEnum):
    INTACT = "intact"
    BROKEN = "broken"
    UNPROVEN = "unproven"  # nothing wrong was found, and nothing that shows it right


class Unreadable(Exception):  # noqa: N818  # Says what happened, as errors.py does.
    """Raised by what hands over records or checkpoints when those are damaged; `str()` says how.

    It raises Unavailable when they cannot be reached, which says nothing about them.
    """


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, and the records [first_seq, last_seq] it lies in where that is known.

    A doubt is something that nothing shows to be right: then the aspect is not proven, and a warning says why. What is
    derived follows from the records and can be made anew from them.
    """

    aspect: Aspect
    code: str
    message: str
    first_seq: int | None = None
    last_seq: int | None = None
    is_doubt: bool = False
    is_derived: bool = False


@dataclass(frozen=True, slots=True)
class StoredNote:
    """A checkpoint as it was found. `size` and `root` are what stands beside the note, where something does."""

    note: str
    size: Any = None
    root: Any = None
    place: str = "the log"
    is_outside: bool = False  # kept by somebody else than the log


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of the log: the live database, a segment of an archive, a bundle.

    `prefix` is the frontier of the records before `first_seq`. `end_seq`, `frontier` and `end_root` are what the part
    says about its own end, where it does, and `origin` which log it says that it is of.
    """

    name: str
    first_seq: int
    prefix: Sequence[bytes]
    batches: Iterable[Sequence[Row]]
    end_seq: int | None = None
    frontier: Sequence[bytes] | None = None
    end_root: bytes | None = None
    origin: str | None = None
    ends_signed: bool = False  # nothing in it may lie beyond its last checkpoint
    is_prunable: bool = True  # what came before it may have been pruned
    may_go_on: bool = False  # the log may have more records than those up to its end, elsewhere


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. `proven_size` is the size of the largest trusted checkpoint whose root the records have.

    `open_from` is the record from which on nothing shows whether there were more; None when the end is known.
    `unreached` says why the log was not read to its end; then nothing is called intact.
    """

    verdicts: dict[Aspect, Verdict]
    findings: Sequence[Finding]
    warnings: Sequence[str]
    first_seq: int
    size: int
    root: bytes | None
    records: int
    checkpoints: int
    trusted_checkpoints: int
    proven_size: int | None
    outside_size: int | None
    hidden_findings: int
    open_from: int | None = None
    unreached: str | None = None
    repair: Repair | None = None  # when nothing is wrong but what it makes right

    @property
    def is_broken(self) -> bool:
        return Verdict.BROKEN in self.verdicts.values()

    @property
    def is_intact(self) -> bool:
        return all(verdict is Verdict.INTACT for verdict in self.verdicts.values())

    @property
    def is_only_open(self) -> bool:
        """Is nothing wrong, and only not shown that nothing is missing?"""
        others = [verdict for aspect, verdict in self.verdicts.items() if aspect is not Aspect.COMPLETENESS]
        return not self.is_broken and not self.is_intact and all(verdict is Verdict.INTACT for verdict in others)

    @property
    def first_bad(self) -> tuple[int, int] | None:
        """The narrowest place known of the first bad record: both ends belong to it."""
        places = [
            (f.first_seq, f.last_seq) for f in self.findings if f.first_seq is not None and f.last_seq is not None
        ]
        return min(places, key=lambda place: (place[1], -place[0]), default=None)


_sha256 = hashlib.sha256
_LOW_BITS = (1 << tree.KEPT_LEVELS) - 1  # of a record that completes a node that is kept

Progress = Callable[[int], None]
"""Told how many records have been read."""


def verify(
    parts: Iterable[Part | Finding],
    notes: Iterable[StoredNote],
    *,
    outside: Sequence[StoredNote] = (),
    trusted: Sequence[Verifier] = (),
    kept: Kept | None = None,
    now: datetime,
    progress: Progress | None = None,
) -> Report:
    """Judge the log that `parts` make, in order. `notes` come in the order of their sizes, `outside` in any.

    `kept` is what the database among the parts keeps beside its records.

    A part that cannot be opened comes as the finding that says so.
    """
    verification = _Verification(notes, outside, trusted, kept)
    try:
        for part in parts:
            if isinstance(part, Finding):
                verification.found(part)
            else:
                verification.part(part, progress)
        verification.end()
    except Unavailable as error:
        verification.unreached(str(error))
    return verification.report(now)


@dataclass(slots=True)
class _Findings:
    kept: list[Finding] = field(default_factory=list)
    counts: dict[Aspect, int] = field(default_factory=dict)

    def add(self, aspect: Aspect, code: str, message: str, first: int | None = None, last: int | None = None) -> None:
        self.put(Finding(aspect, code, message, first, first if last is None else last))

    def put(self, finding: Finding) -> None:
        count = self.counts[finding.aspect] = self.counts.get(finding.aspect, 0) + 1
        if count <= FINDINGS_KEPT:
            self.kept.append(finding)

    @property
    def are_derived(self) -> bool:
        """Are there any, and all of what follows from the records?"""
        return bool(self.kept) and not self.hidden and all(finding.is_derived for finding in self.kept)

    @property
    def hidden(self) -> int:
        return sum(self.counts.values()) - len(self.kept)


@dataclass(frozen=True, slots=True)
class _Claim:
    """A root that the tree of `size` records of the log `origin` has to have."""

    size: int
    root: bytes
    origin: str
    is_trusted: bool
    is_outside: bool
    place: str


class _Claims:
    """The checkpoints in the order of their sizes, each opened as it comes, with what is wrong about it noted."""

    def __init__(self, notes: Iterable[StoredNote], trusted: Sequence[Verifier], findings: _Findings) -> None:
        self._trusted = {(verifier.name, verifier.key_id): verifier for verifier in trusted}
        self._findings = findings
        self._coming = self._opened(notes)
        self._roots: tuple[int, dict[bytes, bool]] = (-1, {})
        self._reported: set[str] = set()
        self.unreached: str | None = None
        self.count = self.trusted_count = 0
        self.next = next(self._coming, None)

    def take(self) -> _Claim | None:
        taken, self.next = self.next, next(self._coming, None)
        return taken

    def _opened(self, notes: Iterable[StoredNote]) -> Iterator[_Claim]:
        last = 0
        for stored in self._readable(notes):
            self.count += 1
            claim = self._open(stored)
            if claim is None:
                continue
            if claim.size < last:
                message = f"A checkpoint of {claim.size} records in {stored.place} is not in its place."
                self._once("checkpoint_out_of_order", Aspect.INTEGRITY, message)
                continue
            last = claim.size
            self._compare_with_others(claim)
            yield claim

    def _readable(self, notes: Iterable[StoredNote]) -> Iterator[StoredNote]:
        try:
            yield from notes
        except Unreadable as error:
            self._once("checkpoints_unreadable", Aspect.AUTHENTICITY, f"The checkpoints cannot be read: {error}.")
        except Unavailable as error:
            self.unreached = str(error)

    def _open(self, stored: StoredNote) -> _Claim | None:
        try:
            checkpoint, signatures = note.read(stored.note)
        except Invalid as error:
            message = f"A checkpoint in {stored.place} {error.errors[0].message}."
            self._once("checkpoint_malformed", Aspect.AUTHENTICITY, message)
            return None
        if (stored.size is not None and stored.size != checkpoint.size) or (
            stored.root is not None and stored.root != checkpoint.root
        ):
            message = f"The columns beside the checkpoint of {checkpoint.size} records do not say what it says."
            self._once("checkpoint_columns", Aspect.INTEGRITY, message, _before(checkpoint.size))
        is_trusted = self._is_trusted(checkpoint, signatures, stored)
        self.trusted_count += is_trusted
        return _Claim(checkpoint.size, checkpoint.root, checkpoint.origin, is_trusted, stored.is_outside, stored.place)

    def _is_trusted(self, checkpoint: Checkpoint, signatures: Sequence[Signature], stored: StoredNote) -> bool:
        """Has a trusted key signed it? Another log's checkpoint does not count, whoever signed it."""
        if not self._trusted:
            return False
        is_trusted = False
        for name, key_id, signature in signatures:
            verifier = self._trusted.get((name, key_id))
            if verifier is None or name != checkpoint.origin:
                continue
            if not verifier.has_signed(checkpoint.text, signature):
                message = f"The signature on the checkpoint of {checkpoint.size} records in {stored.place} is forged."
                self._once("signature_wrong", Aspect.AUTHENTICITY, message, _before(checkpoint.size))
                return False
            is_trusted = True
        if not is_trusted:
            which = f"The checkpoint of {checkpoint.size} records in {stored.place}"
            message = f"{which} is signed by none of the keys that you trust."
            self._once("key_unknown", Aspect.AUTHENTICITY, message, _before(checkpoint.size))
        return is_trusted

    def _compare_with_others(self, claim: _Claim) -> None:
        size, roots = self._roots
        if size != claim.size:
            self._roots = (claim.size, {claim.root: claim.is_trusted})
            return
        if claim.root not in roots:
            who = "One key has signed" if claim.is_trusted and any(roots.values()) else "There are"
            message = f"{who} two different logs of {claim.size} records: one of them was rewritten."
            self._once("fork", Aspect.INTEGRITY, message, _before(claim.size))
        roots[claim.root] = roots.get(claim.root, False) or claim.is_trusted

    def _once(self, code: str, aspect: Aspect, message: str, seq: int | None = None) -> None:
        """Report the first of its kind; the same fault stands in every checkpoint that follows."""
        if code in self._reported:
            return
        self._reported.add(code)
        self._findings.add(aspect, code, message, None if seq is None else 0, seq)


class _Verification:
    """One pass over a log. The tree is that of all records before `_size`; `_roots` is None once it cannot be known."""

    def __init__(
        self,
        notes: Iterable[StoredNote],
        outside: Sequence[StoredNote],
        trusted: Sequence[Verifier],
        kept: Kept | None,
    ) -> None:
        self._findings = _Findings()
        self._nodes = Nodes(None if kept is None else kept.nodes)
        self._kept_seq = kept.first_seq if kept is not None else None
        self._kept_prefix: tuple[bytes, ...] | None = None  # what it has to be, once the records before are known
        self._is_prefix_wrong = False
        self._warnings: list[str] = []
        self._doubts: set[Aspect] = set()
        ordered = sorted(outside, key=claimed_size)
        self._has_keys = bool(trusted)
        self._has_outside = any(kept.is_outside for kept in outside)
        merged = heapq.merge(notes, ordered, key=claimed_size)
        self._claims = _Claims(merged, trusted, self._findings)
        self._first_seq: int | None = None
        self._size = 0
        self._roots: list[bytes] | None = []
        self._records = 0
        self._good_size: int | None = None  # the largest checkpoint that fits
        self._good_origins: set[str] = set()  # of the checkpoints that do, of that size
        self._proven_size: int | None = None
        self._outside_size: int | None = None
        self._is_off = False  # a checkpoint did not fit: none that follows can
        self._unchecked = 0
        self._is_cut = False  # a part could not be read to its end
        self._may_go_on = False
        self._open_from: int | None = None
        self._has_known_more = False  # somebody kept a checkpoint of records beyond that
        self._unreached: str | None = None
        self._must_end_signed = False
        self._last_ts = ""
        self._first_unsigned_ts = self._first_uncovered_ts = ""
        self._clock_steps = 0
        self._first_clock_step = 0
        self._pruned_below = 0  # what the log itself says was pruned
        self._pruned_to = 0

    # --- parts ---

    def found(self, finding: Finding) -> None:
        if finding.is_doubt:
            self._doubts.add(finding.aspect)
            self._warnings.append(finding.message)
            return
        self._findings.put(finding)

    def unreached(self, why: str) -> None:
        self._is_cut = True
        self._unreached = why

    def end(self) -> None:
        self._nodes.end()

    def part(self, part: Part, progress: Progress | None) -> None:
        joint = self._begin(part)
        try:
            for batch in part.batches:
                for row in batch:
                    self._record(row)
                    if joint is not None and self._size == joint[0]:
                        self._join(part, *joint)
                        joint = None
                if progress is not None:
                    progress(self._records)
        except Unreadable as error:
            self._is_cut = True
            self._damaged(part, str(error))
            return
        if joint is not None:
            self._missing(self._size, joint[0] - 1, f"at the end of {part.name}")
        self._end(part)

    def _damaged(self, part: Part, how: str) -> None:
        if part.end_seq is not None and part.first_seq < part.end_seq <= self._size:
            # Every record came, and what says that they are those that were packed is damaged.
            message = f"{part.name} is damaged: {how}."
            self._findings.add(Aspect.INTEGRITY, "unreadable", message, part.first_seq, part.end_seq - 1)
        else:
            message = f"{part.name} cannot be read from record {self._size} on: {how}."
            self._findings.add(Aspect.INTEGRITY, "unreadable", message, self._size)

    def _begin(self, part: Part) -> tuple[int, list[bytes] | None] | None:
        """Start the tree from what the part says came before it; returns the point where it meets the part before."""
        prefix = self._prefix(part)
        if self._first_seq is None and prefix is None:
            self._nodes.give_up()
        elif self._first_seq is None and part.first_seq and prefix is not None:
            self._nodes.begin(part.first_seq, prefix)
        if self._first_seq is None:
            self._first_seq = self._size = part.first_seq
            self._roots = prefix
            if part.first_seq and not part.is_prunable:
                self._missing(0, part.first_seq - 1, f"before {part.name}")
            elif part.first_seq:
                self._pruned_to = part.first_seq
            self._skip_claims_before(part.first_seq)
            self._settle_claims()
            return None
        if part.first_seq == self._size:
            if self._roots is None:  # From here on there is something to compare again.
                self._roots, self._is_off = prefix, False
            elif prefix is not None and self._roots != prefix:
                self._wrong_prefix(part)
            return None
        if part.first_seq > self._size:
            self._missing(self._size, part.first_seq - 1, f"before {part.name}")
            self._skip_claims_before(part.first_seq)
            self._nodes.give_up()
            self._size, self._roots, self._is_off = part.first_seq, prefix, False
            self._settle_claims()
            return None
        joint = (self._size, self._roots)
        self._size, self._roots, self._last_ts = part.first_seq, prefix, ""
        return joint

    def _prefix(self, part: Part) -> list[bytes] | None:
        prefix = list(part.prefix)
        right = self._kept_prefix if part.frontier is not None else None
        if right is not None and part.first_seq == self._kept_seq:
            if tuple(prefix) != right:
                self._is_prefix_wrong = True
                message = f"What {part.name} keeps of the records before {part.first_seq} is not what they were."
                self._findings.put(Finding(Aspect.INTEGRITY, "prefix_wrong", message, is_derived=True))
            return list(right)
        if len(prefix) != part.first_seq.bit_count() or any(len(node) != tree.HASH_BYTES for node in prefix):
            self._wrong_prefix(part)
            return None
        return prefix

    def _wrong_prefix(self, part: Part) -> None:
        message = f"What {part.name} says about the records before {part.first_seq} is not what they were."
        self._findings.add(Aspect.INTEGRITY, "prefix_wrong", message, 0, max(part.first_seq - 1, 0))

    def _join(self, part: Part, size: int, roots: list[bytes] | None) -> None:
        if roots is not None and self._roots is not None and roots != self._roots:
            message = f"{part.name} and the part before it hold different records before {size}."
            self._findings.add(Aspect.INTEGRITY, "parts_differ", message, part.first_seq, size - 1)

    def _end(self, part: Part) -> None:
        self._must_end_signed, self._may_go_on = part.ends_signed, part.may_go_on
        if part.end_seq is not None and part.end_seq > self._size:
            self._missing(self._size, part.end_seq - 1, f"at the end of {part.name}")
            return
        if part.end_seq is not None and part.end_seq < self._size:
            message = f"{part.name} holds more records than it says: {self._size}, not {part.end_seq}."
            self._findings.add(Aspect.INTEGRITY, "head_wrong", message, max(part.end_seq, 0), self._size - 1)
            return
        self._judge_origin(part)
        if self._roots is not None and not _is_end(part, self._roots):
            message = f"The state of the tree that {part.name} keeps is not that of its records."
            first = self._good_size or 0
            self._findings.add(Aspect.INTEGRITY, "head_wrong", message, min(first, self._size), self._size)

    def _judge_origin(self, part: Part) -> None:
        """Is it of the log that it says? Its checkpoints are what that is said of."""
        if part.origin is None or self._good_size != part.end_seq or part.origin in self._good_origins:
            return
        found = min(self._good_origins)
        message = f"{part.name} says that it is of the log {part.origin}, and its checkpoint is of {found}."
        self._findings.add(Aspect.AUTHENTICITY, "origin_wrong", message)

    def _missing(self, first: int, last: int, where: str) -> None:
        which = f"Record {first} is" if first == last else f"Records {first} to {last} are"
        self._findings.add(Aspect.COMPLETENESS, "records_missing", f"{which} missing {where}.", first, last)

    # --- records ---

    def _record(self, row: Row) -> None:
        seq, body = row[0], row[1]
        record = reading.read(body)
        if seq is None and record is not None:
            seq = record[0]
        if seq != self._size or type(seq) is not int:
            seq = self._placed(seq)
        if record is None:
            self._bad(seq, "record_malformed", "is not in the one form that a record has")
        else:
            self._inspect(seq, row, *record)
        self._records += 1
        self._grow(body if type(body) is bytes else b"")
        claim = self._claims.next
        if claim is not None and claim.size <= self._size:
            self._settle_claims()

    def _inspect(self, seq: int, row: Row, own_seq: int, columns: Columns, pruned_below: int) -> None:
        if own_seq != seq:
            self._bad(seq, "seq_wrong", "has another number inside than its place")
        if len(row) > 2 and row[2:] != columns:
            self._compare(seq, row, columns)
        self._pruned_below = max(self._pruned_below, pruned_below)
        ts = columns[1]
        assert ts is not None
        if ts < self._last_ts:
            self._clock_went_back(seq, ts)
        self._last_ts = ts
        if not self._first_unsigned_ts and seq >= (self._proven_size or 0):
            self._first_unsigned_ts = ts
        if not self._first_uncovered_ts and seq >= (self._outside_size or 0):
            self._first_uncovered_ts = ts

    def _compare(self, seq: int, row: Row, columns: Columns) -> None:
        differing = [name for name, is_, ought in zip(COLUMNS, row[2:], columns, strict=True) if is_ != ought]
        self._bad(seq, "column_wrong", f"says something else than its search column {' and '.join(differing)}")

    def _placed(self, seq: Any) -> int:
        """Where a record is taken to stand that says something else than that it is the next."""
        if type(seq) is not int or seq < 0:
            return self._size
        if seq > self._size:
            self._missing(self._size, seq - 1, f"before record {seq}")
        else:
            self._bad(seq, "out_of_place", f"stands after record {self._size - 1}")
        self._size, self._roots = seq, None
        self._nodes.give_up()
        return seq

    def _bad(self, seq: int, code: str, what: str) -> None:
        self._findings.add(Aspect.INTEGRITY, code, f"Record {seq} {what}.", seq)

    def _grow(self, body: bytes) -> None:
        roots = self._roots
        if roots is not None:
            size = self._size
            if size & _LOW_BITS == _LOW_BITS:
                roots[:] = tree.grow(roots, size, tree.leaf_hash(body), self._nodes.completed)
            else:
                node = _sha256(b"\x00" + body).digest()
                while size & 1:
                    node = _sha256(b"\x01" + roots.pop() + node).digest()
                    size >>= 1
                roots.append(node)
            if self._size + 1 == self._kept_seq:
                self._kept_prefix = tuple(roots)
        self._size += 1

    def _clock_went_back(self, seq: int, ts: str) -> None:
        earlier, later = _instant(ts), _instant(self._last_ts)
        if earlier is None or later is None or later - earlier > CLOCK_STEP:
            self._clock_steps += 1
            self._first_clock_step = self._first_clock_step or seq

    # --- checkpoints ---

    def _skip_claims_before(self, size: int) -> None:
        while (claim := self._claims.next) is not None and claim.size < size:
            self._claims.take()
            self._unchecked += 1
            if claim.is_outside:
                self._warnings.append(
                    f"Your checkpoint of {claim.size} records is older than what is left of the log; it can be "
                    f"compared only together with the archive (--archive)."
                )

    def _settle_claims(self) -> None:
        """Compare every checkpoint of the size that the tree now has."""
        while (claim := self._claims.next) is not None and claim.size <= self._size:
            self._claims.take()
            if self._roots is None or claim.size != self._size:
                self._unchecked += 1
            elif tree.root(self._roots) == claim.root:
                self._fits(claim)
            else:
                self._does_not_fit(claim)

    def _fits(self, claim: _Claim) -> None:
        if claim.size != self._good_size:
            self._good_size, self._good_origins = claim.size, set()
        self._good_origins.add(claim.origin)
        if claim.is_trusted:
            self._proven_size, self._first_unsigned_ts = claim.size, ""
            if claim.is_outside:
                self._outside_size, self._first_uncovered_ts = claim.size, ""

    def _does_not_fit(self, claim: _Claim) -> None:
        if self._is_off and not claim.is_outside:
            return
        self._is_off = True
        first = max(self._good_size or 0, self._first_seq or 0)
        first = min(first, max(claim.size - 1, 0))
        message = (
            f"The records before {claim.size} are not those that the checkpoint in {claim.place} speaks of: "
            f"something between record {first} and record {max(claim.size - 1, 0)} was changed."
        )
        self._findings.add(Aspect.INTEGRITY, "root_wrong", message, first, max(claim.size - 1, 0))

    # --- the end ---

    def report(self, now: datetime) -> Report:
        self._unreached = self._unreached or self._claims.unreached
        self._judge_claims_beyond()
        self._judge_pruning()
        self._judge_nodes()
        verdicts = {aspect: self._verdict(aspect) for aspect in Aspect}
        repair = self._repair(verdicts)
        self._warn(now)
        return Report(
            verdicts=verdicts,
            findings=tuple(self._findings.kept),
            warnings=tuple(self._warnings),
            first_seq=self._first_seq or 0,
            size=self._size,
            root=None if self._roots is None else tree.root(self._roots),
            records=self._records,
            checkpoints=self._claims.count,
            trusted_checkpoints=self._claims.trusted_count,
            proven_size=self._proven_size,
            outside_size=self._outside_size,
            hidden_findings=self._findings.hidden,
            open_from=self._open_from,
            unreached=self._unreached,
            repair=repair,
        )

    def _judge_nodes(self) -> None:
        if self._is_cut or self._unreached or self._roots is None:
            return
        nodes = self._nodes
        if not nodes.are_wrong:
            return
        wrong = len(nodes.put) - nodes.missing
        said = [f"{wrong} are not what the records give"] if wrong else []
        said += [f"{nodes.missing} are missing"] if nodes.missing else []
        said += [f"{len(nodes.remove)} belong to nothing"] if nodes.remove else []
        said += ["those of the pruned records do not add up to what is kept of them"] if nodes.are_pruned_wrong else []
        message = f"Of the inner nodes of the tree that the database keeps (audit_nodes), {' and '.join(said)}."
        self._findings.put(Finding(Aspect.INTEGRITY, "nodes_wrong", message, is_derived=True))

    def _repair(self, verdicts: Mapping[Aspect, Verdict]) -> Repair | None:
        """Only beside records that are whole and signed: what is wrong may be all that shows a forgery."""
        is_signed = verdicts[Aspect.AUTHENTICITY] is Verdict.INTACT and verdicts[Aspect.COMPLETENESS] is Verdict.INTACT
        if self._kept_seq is None or not is_signed or not self._findings.are_derived:
            return None
        if self._nodes.are_pruned_wrong:
            self._warnings.append(
                "The records are intact. To make the rest anew those in the archive are needed as well."
            )
            return None
        self._warnings.append(
            "The records are intact: what is wrong is made from them. `server-monitor audit repair` makes it anew."
        )
        prefix = self._kept_prefix if self._is_prefix_wrong else None
        return Repair(self._kept_seq, tuple(self._nodes.put), tuple(self._nodes.remove), prefix)

    def _judge_claims_beyond(self) -> None:
        """Checkpoints of more records than there are: the end was cut off, unless it may lie elsewhere."""
        first = newest = None
        is_kept = False
        while (claim := self._claims.take()) is not None:
            first, newest, is_kept = first or claim, claim, is_kept or claim.is_outside
        if self._is_cut or self._unreached:
            return
        if self._may_go_on:
            self._open_from, self._has_known_more = self._size, is_kept
            self._warnings.append(self._about_open_end(newest))
        elif first is not None:
            message = (
                f"The log ends before record {self._size}, and the checkpoint in {first.place} is of {first.size} "
                f"records: the end was cut off."
            )
            self._findings.add(Aspect.COMPLETENESS, "too_short", message, self._size, first.size - 1)

    def _about_open_end(self, newest: _Claim | None) -> str:
        """What an archive by itself cannot say."""
        if newest is None:
            return (
                f"Completeness is not proven beyond record {self._size - 1}: an archive whose last segments were "
                f"deleted looks like one that has not gone on. Check it together with the database (--database)."
            )
        return (
            f"Completeness is not proven beyond record {self._size - 1}: the archive ends there, and the checkpoint "
            f"in {newest.place} is of {newest.size} records. The rest is in the database, or gone. Check both "
            f"together (--database and --archive)."
        )

    def _judge_pruning(self) -> None:
        if self._pruned_to > self._pruned_below:
            first = self._pruned_below
            message = (
                f"Records {first} to {self._pruned_to - 1} are gone, and no record of the log says that they were "
                f"pruned."
            )
            self._findings.add(Aspect.COMPLETENESS, "pruned_unsaid", message, first, self._pruned_to - 1)

    def _verdict(self, aspect: Aspect) -> Verdict:
        if self._findings.counts.get(aspect):
            return Verdict.BROKEN
        is_unproven = self._unreached is not None or aspect in self._doubts
        if aspect is Aspect.AUTHENTICITY:
            is_unproven = is_unproven or self._proven_size is None or self._is_end_unproven()
        elif aspect is Aspect.COMPLETENESS:
            # An end that is open is as good as the checkpoint that says how far the log has to reach at least.
            is_open = self._open_from is not None and (self._outside_size is None or self._has_known_more)
            is_unproven = is_unproven or is_open
        return Verdict.UNPROVEN if is_unproven else Verdict.INTACT

    def _is_end_unproven(self) -> bool:
        if self._must_end_signed and self._proven_size != self._size:
            return True
        first, last = _instant(self._first_unsigned_ts), _instant(self._last_ts)
        return first is not None and (last is None or last - first > UNSIGNED_SPAN)

    def _warn(self, now: datetime) -> None:
        unsigned = self._size - (self._proven_size or 0)
        if self._has_keys and self._first_unsigned_ts and unsigned > 0:
            self._warnings.append(
                f"The last {unsigned} records are under no checkpoint yet: nothing shows that they are as they were "
                f"written. A running console signs them within a minute."
            )
        uncovered = _instant(self._first_uncovered_ts)
        if not self._has_outside:
            self._warnings.append(
                "No checkpoint from outside was compared (--checkpoint): whoever owns both the database and the "
                "signing key could have rewritten this log, and an older copy of it would look the same."
            )
        elif uncovered is not None and now - uncovered > OUTSIDE_AGE:
            self._warnings.append(
                f"The newest checkpoint from outside ends before record {self._outside_size or 0}; records from "
                f"{self._first_uncovered_ts} on are covered by none, and that is more than 24 hours ago."
            )
        if self._clock_steps:
            self._warnings.append(
                f"The clock went back {self._clock_steps} times, first at record {self._first_clock_step}."
            )
        if self._unchecked:
            self._warnings.append(
                f"{self._unchecked} checkpoints could not be compared, because the records before them are not here."
            )


def _instant(ts: str) -> datetime | None:
    try:
        return datetime.strptime(ts, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def _is_end(part: Part, roots: list[bytes]) -> bool:
    is_frontier = part.frontier is None or list(part.frontier) == roots
    return is_frontier and (part.end_root is None or part.end_root == tree.root(roots))


def claimed_size(stored: StoredNote) -> int:
    """What the note says of its size, for putting notes in order; 0 when it is not to be read."""
    if type(stored.size) is int:
        return stored.size
    try:
        return note.read(stored.note)[0].size
    except Invalid:
        return 0


def _before(size: int) -> int:
    return max(size - 1, 0)
