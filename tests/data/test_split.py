"""Samples that are kept apart."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from onnxprune.data.base import Batch, Data
from onnxprune.data.split import hold_out
from onnxprune.model.signature import Port

FREE, FIXED = Port("x", "tensor(float)", ("batch", 2)), Port("x", "tensor(float)", (3, 2))


def data(lengths: Sequence[int], labels: bool = True) -> Data:
    """Batches of these lengths; sample i holds i and is labelled i."""
    numbers = np.split(np.arange(sum(lengths)), np.cumsum(lengths)[:-1])

    def batches():  # type: ignore[no-untyped-def]
        for each in numbers:
            yield Batch({"x": np.repeat(each[:, None], 2, 1), "scale": np.array(3.0)}, each if labels else None)

    return Data("made", labels, batches)


def samples(part: Data) -> list[int]:
    """Those in a part, after a look at whether their labels are with them."""
    found: list[int] = []
    for batch in part.batches():
        assert len(batch.feed["x"])
        assert batch.feed["scale"].shape == ()
        if batch.labels is not None:
            np.testing.assert_array_equal(batch.feed["x"][:, 0], batch.labels)
        found.extend(batch.feed["x"][:, 0].tolist())
    return found


@pytest.mark.parametrize("lengths", [[13], [4, 4, 4, 1], [1] * 13, [7, 6]])
@pytest.mark.parametrize("labels", [True, False])
def test_every_third_sample_whatever_the_batches(lengths: list[int], labels: bool) -> None:
    found = hold_out(data(lengths, labels), [FREE, Port("scale", "tensor(float)", ())])
    for _ in range(2):  # the same in every pass
        assert samples(found.measuring) == [2, 5, 8, 11]
        assert samples(found.fitting) == [n for n in range(13) if n not in (2, 5, 8, 11)]
    assert (found.samples, found.apart, found.measuring.labelled) == (4, True, labels)


def test_every_third_batch_where_the_model_fixes_their_size() -> None:
    found = hold_out(data([3] * 11), [FIXED])
    assert samples(found.measuring) == [6, 7, 8, 15, 16, 17, 24, 25, 26]
    assert len(samples(found.fitting)) == 24
    assert all(len(batch.feed["x"]) == 3 for part in (found.fitting, found.measuring) for batch in part.batches())
    assert found.samples == 9


def test_batches_that_are_not_samples_along_every_axis_are_not_cut() -> None:
    made = Data("made", False, lambda: (Batch({"x": np.zeros((4, 2)), "y": np.zeros((3, 2))}) for _ in range(5)))
    found = hold_out(made, [FREE, Port("y", "tensor(float)", ("other", 2))])
    assert [len(list(part.batches())) for part in (found.fitting, found.measuring)] == [4, 1]
    assert found.samples == 4


@pytest.mark.parametrize(("lengths", "apart"), [([2], [1]), ([4], [2]), ([1, 2], [2]), ([1, 1], [1])])
def test_of_few_samples_the_last(lengths: list[int], apart: list[int]) -> None:
    assert samples(hold_out(data(lengths), [FREE]).measuring) == apart


@pytest.mark.parametrize(("lengths", "port"), [([1], FREE), ([3], FIXED)])
def test_what_cannot_be_parted_serves_for_both(lengths: list[int], port: Port) -> None:
    found = hold_out(data(lengths), [port])
    assert samples(found.fitting) == samples(found.measuring) == list(range(sum(lengths)))
    assert (found.samples, found.apart) == (sum(lengths), False)


def test_samples_are_parted_along_their_axes() -> None:
    """[time, batch, features] and [layers, batch, hidden]: no step and no layer goes to the other part."""
    numbers = np.arange(6.0)
    whole = Batch(
        {"x": np.tile(numbers[None, :, None], (4, 1, 2)), "h": np.tile(numbers[None, :, None], (6, 1, 3))},
        numbers,
        {"x": 1, "h": 1},
    )
    ports = [Port("x", "tensor(float)", ("time", "b", 2), 1), Port("h", "tensor(float)", (6, "b", 3), 1)]
    found = hold_out(Data("made", True, lambda: iter([whole])), ports)
    for part, expected in ((found.measuring, [2, 5]), (found.fitting, [0, 1, 3, 4])):
        (batch,) = part.batches()
        assert batch.feed["x"].shape == (4, len(expected), 2)
        assert batch.feed["h"].shape == (6, len(expected), 3)
        assert (batch.feed["x"][0, :, 0] == expected).all()
        assert batch.labels is not None
        assert batch.labels.tolist() == expected
    assert (found.samples, found.apart) == (2, True)


def test_static_batches_along_another_axis_are_not_cut() -> None:
    whole = [Batch({"x": np.full((4, 2, 3), n)}, None, {"x": 1}) for n in range(3)]
    found = hold_out(Data("made", False, lambda: iter(whole)), [Port("x", "tensor(float)", ("time", 2, 3), 1)])
    assert [batch.feed["x"].shape for batch in found.measuring.batches()] == [(4, 2, 3)]
    assert found.samples == 2


def test_so_many_are_enough() -> None:
    """Beyond the region that they come from nothing is read to count, and everything may be fitted to."""
    read = []
    whole = data([5] * 20)

    def counted():  # type: ignore[no-untyped-def]
        for batch in whole.batches():
            read.append(len(batch.feed["x"]))
            yield batch

    found = hold_out(Data("made", True, counted), [FREE], every=5, most=3)
    assert sum(read) == 15
    assert samples(found.measuring) == [4, 9, 14]
    assert samples(found.fitting) == [n for n in range(100) if n not in (4, 9, 14)]
    assert found.samples == 3


def test_passes_over_single_samples_leave_out_what_is_kept_apart() -> None:
    whole = data([1] * 13)
    parted = Data("made", True, whole.start, lambda i, n: itertools.islice(whole.batches(), i, None, n))
    fitting = hold_out(parted, [FREE]).fitting
    assert fitting.part is not None
    found = [int(batch.labels[0]) for i in range(2) for batch in fitting.part(i, 2) if batch.labels is not None]
    assert sorted(found) == samples(fitting)
