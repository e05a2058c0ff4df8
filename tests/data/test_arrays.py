"""Arrays in .npz files and folders: found, streamed, and refused with a reason."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxprune.data.base import Data
from onnxprune.errors import DataError
from onnxprune.model.signature import Port
from tests.data.harness import IDS, MASK, ROWS, assert_same_again, gathered, labels_of, load, sizes

X = np.random.default_rng(0).standard_normal((10, 3)).astype(np.float32)
Y = np.arange(10)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_file(tmp_path: Path, save: Any) -> None:
    save(tmp_path / "data.npz", x=X, y=Y, other=X)
    data = load(tmp_path / "data.npz", ROWS, labels="y", batch=3)
    assert sizes(data) == [3, 3, 3, 1]
    assert (gathered(data) == X).all()
    assert (labels_of(data) == Y).all()
    assert_same_again(data)


def test_one_array_fits_one_input(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", whatever=X, y=Y)
    assert (gathered(load(tmp_path / "data.npz", ROWS, labels="y")) == X).all()
    np.save(tmp_path / "data.npy", X)
    assert (gathered(load(tmp_path / "data.npy", ROWS)) == X).all()


def test_which_of_two_arrays_is_not_guessed(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", images=X, y=Y)
    with pytest.raises(DataError, match=r"no array for input 'x' \(float\[batch, 3\]\); there are: images, y"):
        load(tmp_path / "data.npz", ROWS)


def test_arrays_in_fortran_order(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.asfortranarray(X))
    data = load(tmp_path / "data.npz", ROWS, batch=4)
    assert sizes(data) == [4, 4, 2]
    assert (gathered(data) == X).all()


def test_a_folder_with_an_array_for_each_input(tmp_path: Path) -> None:
    ids = np.arange(20).reshape(10, 2)
    for name, array in {"input_ids": ids, "attention_mask": np.ones_like(ids), "y": Y, "unused": X}.items():
        np.save(tmp_path / f"{name}.npy", array)
    data = load(tmp_path, IDS, MASK, labels="y", batch=4)
    assert sizes(data) == [4, 4, 2]
    assert (gathered(data, "input_ids") == ids).all()
    assert (labels_of(data) == Y).all()
    assert_same_again(data)


@pytest.mark.parametrize("each", [1, 3], ids=["a sample", "samples"])
def test_a_folder_with_files_of_samples(tmp_path: Path, each: int) -> None:
    parts = np.split(X[:9], 9 // each)
    for index, part in enumerate(parts):
        np.save(tmp_path / f"sample{index}.npy", part[0] if each == 1 else part)
    np.save(tmp_path / "y.npy", Y[:9])
    data = load(tmp_path, ROWS, labels="y", batch=4)
    assert sizes(data) == [4, 4, 1]
    assert (gathered(data) == X[:9]).all()
    assert (labels_of(data) == Y[:9]).all()
    assert_same_again(data)


@pytest.mark.parametrize("each", [1, 3], ids=["a sample", "samples"])
def test_a_folder_of_npz_files(tmp_path: Path, each: int) -> None:
    ids = np.arange(18).reshape(9, 2)
    for start in range(0, 9, each):
        rows = start if each == 1 else slice(start, start + each)
        np.savez(tmp_path / f"{start}.npz", input_ids=ids[rows], attention_mask=np.ones_like(ids)[rows], y=Y[rows])
    data = load(tmp_path, IDS, MASK, labels="y", batch=4)
    assert sizes(data) == [4, 4, 1]
    assert (gathered(data, "input_ids") == ids).all()
    assert (labels_of(data) == Y[:9]).all()


def test_samples_of_different_shapes(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((1, 4), np.int64))
    np.save(tmp_path / "b.npy", np.ones((1, 5), np.int64))
    with pytest.raises(
        DataError, match=r"'input_ids' are 4 and 5, apart from axis 0; .* --batch 1, .* module:function"
    ):
        load(tmp_path, IDS)
    assert [batch.feed["input_ids"].shape for batch in load(tmp_path, IDS, batch=1).batches()] == [(1, 4), (1, 5)]


def test_missing_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=X, labels=Y)
    with pytest.raises(DataError, match="no labels 'label'; did you mean 'labels'"):
        load(tmp_path / "data.npz", ROWS, labels="label")


def test_different_lengths(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=X, y=Y[:7])
    with pytest.raises(DataError, match=r"10 for 'x' along axis 0, 7 for 'labels' along axis 0; .* module:function"):
        load(tmp_path / "data.npz", ROWS, labels="y")


def test_too_few_labels_beside_files_of_samples(tmp_path: Path) -> None:
    for index in range(5):
        np.save(tmp_path / f"{index}.npy", X[index])
    np.save(tmp_path / "y.npy", Y[:4])
    with pytest.raises(DataError, match="different numbers of samples"):
        list(load(tmp_path, ROWS, labels="y").batches())


def test_objects_are_never_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.array([{"a": 1}], object))
    with pytest.raises(DataError, match="array 'x' holds Python objects"):
        load(tmp_path / "data.npz", ROWS)


@pytest.mark.parametrize("name", ["data.npz", "data.npy"])
@pytest.mark.parametrize("content", [b"", b"no array", b"PK\x03\x04 cut", b"\x93NUMPY\x01\x00v\x00{'descr'"])
def test_files_that_are_something_else(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name} cannot be read: .*; save it again") as caught:
        load(tmp_path / name, ROWS)
    assert "\n" not in str(caught.value)


def test_truncated_and_damaged_files(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", X)
    content = (tmp_path / "data.npy").read_bytes()
    (tmp_path / "data.npy").write_bytes(content[:-7])
    with pytest.raises(DataError, match="truncated"):
        load(tmp_path / "data.npy", ROWS)
    np.savez(tmp_path / "data.npz", x=X)
    packed = bytearray((tmp_path / "data.npz").read_bytes())
    packed[180] ^= 0xFF  # in the middle of the array: the checksum no longer fits
    (tmp_path / "data.npz").write_bytes(packed)
    with pytest.raises(DataError, match="CRC"):
        load(tmp_path / "data.npz", ROWS)


def peak_bytes(data: Data) -> int:
    """The most memory that a pass takes at any moment."""
    tracemalloc.start()
    try:
        for _ in data.batches():
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_memory_does_not_grow_with_the_samples(tmp_path: Path, save: Any) -> None:
    port = Port("x", "tensor(float)", ("batch", 1000))
    peaks = []
    for samples in (1000, 4000):
        save(tmp_path / f"{samples}.npz", x=np.zeros((samples, 1000), np.float32), y=np.zeros(samples))
        peaks.append(peak_bytes(load(tmp_path / f"{samples}.npz", port, labels="y", batch=16)))
    assert peaks[1] < 1.2 * peaks[0]
    assert peaks[1] < 1_000_000  # the array takes 16 MB


def test_memory_does_not_grow_with_the_length_of_a_file_among_others(tmp_path: Path) -> None:
    np.save(tmp_path / "part.npy", np.zeros((4000, 1000), np.float32))
    data = load(tmp_path, Port("x", "tensor(float)", ("batch", 1000)), batch=16)
    assert sizes(data) == [16] * 250
    assert peak_bytes(data) < 1_000_000
