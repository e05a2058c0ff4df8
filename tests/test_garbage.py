"""The collector is off inside the block, and afterwards as it was."""

from __future__ import annotations

import gc

import pytest

from onnxprune.support.garbage import no_garbage_collection


def test_off_inside_and_on_again_whatever_happens() -> None:
    assert gc.isenabled()
    inside = []
    with pytest.raises(ZeroDivisionError), no_garbage_collection():
        inside.append(1 / gc.isenabled())
    assert not inside
    assert gc.isenabled()


def test_an_inner_block_leaves_it_off() -> None:
    with no_garbage_collection():
        with no_garbage_collection():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
