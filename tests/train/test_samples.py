"""Samples: every one once an epoch, the same for a seed, streamed where memory is short."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxprune.data.base import Batch, Data, load_data
from onnxprune.data.pixels import ImageOptions
from onnxprune.errors import DataError
from onnxprune.model.signature import Port
from onnxprune.steps.train.decoding import decoded, in_processes
from onnxprune.steps.train.samples import TrainingSamples, hold_apart
from tests.train.harness import data_of

GIGABYTE = 1 << 30
COUNT = 50


def numbered(size: int = 7) -> Data:
    """Sample i holds i, its label too."""
    x = np.arange(COUNT, dtype=np.float32)[:, None]
    return data_of({"x": x}, np.arange(COUNT), size)


def seen(samples: TrainingSamples, epoch: int) -> list[list[int]]:
    return [
        [int(value) for portion in update for value in portion.batch.feed["x"][:, 0]] for update in samples.epoch(epoch)
    ]


@pytest.mark.parametrize("memory", [GIGABYTE, 100], ids=["in memory", "streamed"])
def test_an_epoch_has_every_sample_at_most_once_in_batches_of_one_size(memory: int) -> None:
    samples = TrainingSamples(numbered(), 8, memory, seed=3)
    updates = seen(samples, 0)
    assert [len(update) for update in updates] == [8] * 6
    together = [number for update in updates for number in update]
    assert len(set(together)) == 48
    assert set(together) <= set(range(COUNT))


@pytest.mark.parametrize("memory", [GIGABYTE, 100], ids=["in memory", "streamed"])
def test_the_order_follows_from_seed_and_epoch(memory: int) -> None:
    first = TrainingSamples(numbered(), 8, memory, seed=3)
    assert seen(first, 1) == seen(TrainingSamples(numbered(), 8, memory, seed=3), 1)
    assert seen(first, 1) != seen(first, 0)
    assert seen(first, 1) != seen(TrainingSamples(numbered(), 8, memory, seed=4), 1)
    assert sorted(seen(first, 1)[0]) != seen(first, 1)[0]


@pytest.mark.parametrize("memory", [GIGABYTE, 100], ids=["in memory", "streamed"])
def test_numbers_and_labels_go_with_their_samples(memory: int) -> None:
    for update in TrainingSamples(numbered(), 8, memory).epoch(0):
        for portion in update:
            assert portion.batch.labels is not None
            assert portion.numbers.tolist() == portion.batch.labels.tolist() == portion.batch.feed["x"][:, 0].tolist()


def test_streaming_shuffles_beyond_a_batch() -> None:
    x = np.arange(400, dtype=np.float32)[:, None]
    samples = TrainingSamples(data_of({"x": x}, size=10), 10, memory=400)  # a window of 100
    first = seen(samples, 0)[0]
    assert max(first) - min(first) > 20


def test_fewer_samples_than_a_batch_are_one() -> None:
    samples = TrainingSamples(numbered(), 128, GIGABYTE)
    assert samples.steps == 1
    assert [len(update) for update in seen(samples, 0)] == [COUNT]


def test_batches_of_a_size_that_the_model_fixes_stay_whole() -> None:
    samples = TrainingSamples(numbered(5), 10, GIGABYTE, fixed=True)
    updates = list(samples.epoch(0))
    assert len(updates) == samples.steps == 5
    for update in updates:
        assert [len(portion) for portion in update] == [5, 5]
        assert all(portion.whole and np.ptp(portion.numbers) == 4 for portion in update)


def test_samples_of_several_lengths_stay_in_their_batches() -> None:
    batches = [Batch({"x": np.zeros((2, length), np.int64)}) for length in (3, 4, 3, 5)]
    samples = TrainingSamples(Data("texts", False, lambda: iter(batches)), 4, GIGABYTE)
    lengths = [portion.batch.feed["x"].shape[1] for update in samples.epoch(0) for portion in update]
    assert sorted(lengths) == [3, 3, 4, 5]


def test_an_input_without_samples_is_the_same_for_all() -> None:
    data = data_of({"x": np.arange(8, dtype=np.float32)[:, None], "k": np.array(3)}, size=3)
    for update in TrainingSamples(data, 4, GIGABYTE).epoch(0):
        assert update[0].batch.feed["k"] == 3


def test_no_samples_are_refused() -> None:
    with pytest.raises(DataError, match="nothing has no samples to train on"):
        TrainingSamples(Data("nothing", False, lambda: iter([])), 4, GIGABYTE)


def all_of(data: Data) -> list[int]:
    return [int(value) for batch in data.batches() for value in batch.feed["x"][:, 0]]


def test_what_is_held_apart_is_not_trained_on() -> None:
    fitting, measuring = hold_apart(numbered(), 0.1)
    assert measuring is not None
    assert all_of(measuring) == [9, 19, 29, 39, 49]
    assert sorted(all_of(fitting) + all_of(measuring)) == list(range(COUNT))


def test_at_most_so_many_are_held_apart() -> None:
    fitting, measuring = hold_apart(numbered(), 0.1, most=2)
    assert measuring is not None
    assert all_of(measuring) == [9, 19]
    assert len(all_of(fitting)) == 48


def test_batches_that_cannot_be_cut_are_held_apart_whole() -> None:
    fitting, measuring = hold_apart(numbered(5), 0.2, fixed=True)
    assert measuring is not None
    assert all_of(measuring) == [*range(20, 25), *range(45, 50)]
    assert {len(batch.feed["x"]) for batch in fitting.batches()} == {5}


def test_too_few_samples_are_not_parted() -> None:
    data = data_of({"x": np.zeros((4, 1), np.float32)})
    assert hold_apart(data, 0.1)[1] is None
    assert hold_apart(numbered(), 0.0)[1] is None


# -- decoding in several processes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirteen images of two classes; the pixels of each are its number."""
    image = pytest.importorskip("PIL.Image")
    for number in range(13):
        place = tmp_path / "images" / f"class{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        image.fromarray(np.full((8, 8, 3), number * 10, np.uint8)).save(place / f"{number:02}.png")
    return tmp_path / "images"


def opened(folder: Path, **given: Any) -> Data:
    return load_data(str(folder), [Port("x", "tensor(float)", ("n", 3, 8, 8))], images=ImageOptions(scale=1.0), **given)


@pytest.mark.parametrize("memory", [GIGABYTE, 4000], ids=["in memory", "streamed"])
def test_processes_that_decode_change_nothing(folder: Path, memory: int) -> None:
    data = opened(folder)
    alone, shared = (TrainingSamples(decoded(data, workers), 4, memory, seed=1) for workers in (0, 3))
    assert shared.count == alone.count == 13
    for one, other in zip(alone.epoch(0), shared.epoch(0), strict=True):
        assert one[0].numbers.tolist() == other[0].numbers.tolist()
        assert np.array_equal(one[0].batch.feed["x"], other[0].batch.feed["x"])
        assert one[0].batch.labels.tolist() == other[0].batch.labels.tolist()  # type: ignore[union-attr]
    assert not multiprocessing.active_children()


def test_each_process_reads_its_part(folder: Path) -> None:
    data = opened(folder)
    assert data.part is not None
    whole = [float(value) for batch in data.batches() for value in batch.feed["x"][:, 0, 0, 0]]
    parts = [[float(batch.feed["x"][0, 0, 0, 0]) for batch in data.part(index, 3)] for index in range(3)]
    assert parts == [whole[0::3], whole[1::3], whole[2::3]]
    assert opened(folder, samples=5).part is None


def test_what_a_process_meets_is_raised_here(folder: Path) -> None:
    data = opened(folder)
    next(folder.rglob("*07.png")).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"07\.png"):
        list(in_processes(data, 2))
    assert not multiprocessing.active_children()


def test_data_that_has_no_parts_is_read_here() -> None:
    data = numbered()
    assert decoded(data, 4) is data


def test_what_is_held_apart_of_data_in_parts_is_held_apart(folder: Path) -> None:
    fitting, measuring = hold_apart(decoded(opened(folder), 2), 0.25)
    assert measuring is not None
    assert TrainingSamples(fitting, 4, GIGABYTE).count == 10
    assert TrainingSamples(measuring, 4, GIGABYTE).count == 3
    assert hold_apart(opened(folder), 0.25)[0].part is None  # else all would be read
