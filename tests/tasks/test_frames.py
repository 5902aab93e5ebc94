"""Pieces of a stream on their way."""

import random

import pytest

from server_monitor.tasks.frames import Frames, Piece, frame

PIECES = [Piece(0, b"begin\n"), Piece(6, b"12 34\n\n"), Piece(5_000, bytes(1_000)), Piece(2**40, b"\xff")]


@pytest.mark.parametrize("most", [1, 2, 3, 7, 5_000])
def test_pieces_arrive_whole_and_in_their_places_however_the_bytes_are_cut(most: int) -> None:
    sent = b"".join(map(frame, PIECES))
    chance, frames, at = random.Random(most), Frames(), 0
    arrived: list[Piece] = []
    while at < len(sent):
        size = chance.randint(1, most)
        arrived += frames.feed(sent[at : at + size])
        at += size

    places = {place for piece in PIECES for place in range(piece.at, piece.at + len(piece.data))}
    assert {place for piece in arrived for place in range(piece.at, piece.at + len(piece.data))} == places
    assert b"".join(piece.data for piece in arrived) == b"".join(piece.data for piece in PIECES)
