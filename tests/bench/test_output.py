import hashlib
from itertools import pairwise

import pytest

from bench.output import END_BYTES, HOSTS, LINE_BYTES, LINES, Numbers, digest_of, loads, printed

PRINTS = Numbers(first=100_000_098, lines=4)
WHOLE = b"100000098\n100000099\n100000100\n100000101\n"


@pytest.mark.parametrize(("offset", "size_bytes"), [(0, 40), (0, 1), (9, 2), (13, 20), (39, 1)])
def test_a_part_of_what_a_host_prints_is_cut_from_the_whole(offset: int, size_bytes: int) -> None:
    assert printed(PRINTS, offset, size_bytes) == WHOLE[offset : offset + size_bytes]


def test_the_digest_is_that_of_the_whole() -> None:
    assert digest_of(PRINTS) == hashlib.sha256(WHOLE).hexdigest()
    assert len(WHOLE) == PRINTS.size_bytes


def test_no_two_hosts_print_the_same_line_and_one_is_beyond_its_limit() -> None:
    for load in loads(HOSTS, LINES):
        ranges = sorted((numbers.first, numbers.last) for numbers in load.prints)
        assert all(last < first for (_, last), (first, _) in pairwise(ranges))
        assert {len(str(number)) for pair in ranges for number in pair} == {LINE_BYTES - 1}
        beyond = [numbers for numbers in load.prints if load.file_bytes and numbers.size_bytes > load.file_bytes]
        assert len(beyond) == (load.file_bytes is not None)
        assert all(numbers.size_bytes > 2 * END_BYTES for numbers in beyond)
