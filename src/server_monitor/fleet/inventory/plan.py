"""What an import would do: which servers it adds, in which order, and everything that is wrong with it. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from server_monitor.errors import FieldError
from server_monitor.fleet.fields import JUMPS_MAX, LOCAL_HOST, name_mistake, quoted, server_mistakes, visible
from server_monitor.fleet.inventory.entries import Entry, Parsed, Skipped


@dataclass(frozen=True, slots=True)
class Known:
    """A server that exists already. `jumps` counts the servers on the way to it."""

    id: str
    host: str
    port: int
    username: str
    jumps: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """`create` holds each server behind the one it is reached through. It may be carried out when `errors` is empty."""

    create: tuple[Entry, ...]
    skipped: tuple[Skipped, ...]
    errors: tuple[FieldError, ...]


def plan(parsed: Parsed, existing: Mapping[str, Known], default_username: str | None) -> Plan:
    """Compare a text with the servers that exist. `default_username` is for entries that name no account."""
    draft = _Draft(existing, default_username)
    for entry in parsed.entries:
        draft.take(entry)
    draft.check_jumps()
    create = () if parsed.errors or draft.errors else tuple(draft.jumps_first())
    draft.check_lengths(create)
    errors = sorted((*parsed.errors, *draft.errors), key=lambda error: error.line or 0)
    skipped = sorted((*parsed.skipped, *draft.skipped), key=lambda one: one.line)
    return Plan(() if errors else create, tuple(skipped), tuple(errors))


@dataclass(slots=True)
class _Draft:
    existing: Mapping[str, Known]
    default_username: str | None
    new: dict[str, Entry] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    errors: list[FieldError] = field(default_factory=list)

    def take(self, entry: Entry) -> None:
        if (line := self.lines.get(entry.name)) is not None:
            self._mistake("name", f"{quoted(entry.name)} is already on line {line}.", entry)
            return
        self.lines[entry.name] = entry.line
        entry = self._with_account(entry)
        self.errors.extend(_mistakes(entry))
        known = self.existing.get(entry.name)
        if known is None:
            self.new[entry.name] = entry
        elif (known.host, known.port, known.username) == (entry.host, entry.port, entry.username):
            self.skipped.append(Skipped(entry.line, visible(entry.name), "It is here already, just the same."))
        elif not entry.implied:
            message = f"A server {quoted(entry.name)} exists with another address or account. Rename one of the two."
            self._mistake("name", message, entry)

    def check_jumps(self) -> None:
        for entry in self.new.values():
            if entry.jump is None or entry.jump in self.new:
                continue
            known = self.existing.get(entry.jump)
            if known is None:
                message = f"There is no server {quoted(entry.jump)} to go through, neither here nor in the text."
                self._mistake("jump", message, entry)
            elif known.host == LOCAL_HOST:
                self._mistake("jump", "The console's own machine needs no jump: leave the field empty.", entry)
        for entry in self._in_loops():
            self._mistake("jump", f"The way to {quoted(entry.name)} leads through itself.", entry)

    def check_lengths(self, in_order: Sequence[Entry]) -> None:
        jumps = {name: known.jumps for name, known in self.existing.items()}
        for entry in in_order:
            jumps[entry.name] = 0 if entry.jump is None else jumps[entry.jump] + 1
            if jumps[entry.name] > JUMPS_MAX:
                self._mistake("jump", f"At most {JUMPS_MAX} servers on the way to another.", entry)

    def jumps_first(self) -> Iterator[Entry]:
        done: set[str] = set()
        for entry in self.new.values():
            way = [entry]
            while way[-1].jump in self.new and way[-1].jump not in done and len(way) <= len(self.new):
                way.append(self.new[way[-1].jump])
            for step in reversed(way):
                if step.name not in done:
                    done.add(step.name)
                    yield step

    def _in_loops(self) -> Iterator[Entry]:
        """Every new server whose way leads back to itself. Each is visited once, however long the ways are."""
        state: dict[str, int] = {}  # the walk in which a server was first met
        for walk, entry in enumerate(self.new.values()):
            current: Entry | None = entry
            while current is not None and current.name not in state:
                state[current.name] = walk
                current = self.new.get(current.jump) if current.jump else None
            if current is not None and state[current.name] == walk:
                yield from self._loop_of(current)

    def _loop_of(self, start: Entry) -> Iterator[Entry]:
        current = start
        while True:
            yield current
            assert current.jump is not None, "a loop has no end"
            current = self.new[current.jump]
            if current is start:
                return

    def _with_account(self, entry: Entry) -> Entry:
        if entry.username is not None:
            return entry
        if self.default_username is None:
            return replace(entry, username="")
        note = f"No account is named: logs in as {self.default_username}."
        return replace(entry, username=self.default_username, notes=(*entry.notes, note))

    def _mistake(self, name: str, message: str, entry: Entry) -> None:
        self.errors.append(FieldError(name, message, entry.line))


def _mistakes(entry: Entry) -> Iterator[FieldError]:
    yield from server_mistakes(
        name=entry.name,
        host=entry.host,
        port=entry.port,
        username=entry.username or "",
        labels=entry.labels,
        capability=entry.capability,
        line=entry.line,
    )
    for group in entry.groups:
        if mistake := name_mistake(group):
            yield FieldError("groups", f"{quoted(group)}: {mistake}", entry.line)
