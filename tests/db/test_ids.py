"""Identifiers: sortable, and never twice."""

import os
import uuid
from concurrent.futures import ThreadPoolExecutor

from server_monitor.db.ids import DRAWN_AT_ONCE, is_id, new_id


def test_an_id_is_a_uuid_of_version_7() -> None:
    for _ in range(3 * DRAWN_AT_ONCE):
        made = new_id()
        assert is_id(made)
        parsed = uuid.UUID(made)
        assert (parsed.version, parsed.variant, str(parsed)) == (7, uuid.RFC_4122, made)


def test_threads_never_get_the_same() -> None:
    with ThreadPoolExecutor(8) as threads:
        made = [one for part in threads.map(lambda _: [new_id() for _ in range(5_000)], range(8)) for one in part]

    assert len({one[14:] for one in made}) == len(made), "what is random in them differs, whatever the time"


def test_a_forked_process_does_not_use_what_was_drawn_for_its_parent() -> None:
    new_id()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, "".join(new_id()[14:] for _ in range(DRAWN_AT_ONCE)).encode())
        os._exit(0)
    os.close(writing)
    ours = {new_id()[14:] for _ in range(DRAWN_AT_ONCE)}
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    theirs = {text[at : at + 22] for at in range(0, len(text), 22)}

    assert len(theirs) == DRAWN_AT_ONCE
    assert not ours & theirs
