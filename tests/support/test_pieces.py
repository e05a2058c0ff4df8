"""Pieces of work in processes: what each gives, and that one that fails or dies leaves the others alone."""

from __future__ import annotations

import os

from onnxprune.errors import DataError
from onnxprune.support.pieces import Failure, work_apart
from onnxprune.support.progress import Progress


def work(piece: str, progress: Progress) -> str:
    progress(f"doing {piece}")
    if piece == "refused":
        raise DataError("no data")
    if piece == "broken":
        raise ValueError("a bug")
    if piece == "killed":
        os._exit(9)
    return piece.upper()


def test_what_fails_leaves_the_others_alone() -> None:
    pieces = ["refused", "first", "killed", "broken", "last"]
    said: list[tuple[int, str]] = []
    found = dict(work_apart(work, pieces, 2, lambda number, text: said.append((number, text))))
    assert (found[1], found[4]) == ("FIRST", "LAST")
    assert not isinstance(found[1], Failure)
    assert all(isinstance(found[number], Failure) for number in (0, 2, 3))
    assert (found[0], found[3]) == ("no data", "unexpected ValueError: a bug")
    assert "exit code 9" in found[2]
    assert set(said) == {(number, f"doing {piece}") for number, piece in enumerate(pieces)}
