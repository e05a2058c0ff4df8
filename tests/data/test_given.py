"""Data as people have it at hand: every form gives the batches that an .npz file with the same samples gives."""

from __future__ import annotations

import gc
import itertools
import subprocess
import sys
import tracemalloc
from collections import UserDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from onnxprune.data import stored
from onnxprune.data.base import Data
from onnxprune.data.given import as_data
from onnxprune.errors import DataError, UsageError, WrongTypeError
from onnxprune.model.signature import Port, with_batch_axes
from tests.data.harness import FIXED, IDS, MASK, ROWS, assert_same_again, gathered, labels_of, load, sizes

torch = pytest.importorskip("torch")

X = np.random.default_rng(0).standard_normal((10, 3)).astype(np.float32)
Y = np.arange(10)
PARTS = [slice(0, 4), slice(4, 8), slice(8, 10)]
TOKENS = np.arange(20).reshape(10, 2)


class Samples:
    """A data set in the way of torch, without an end of its own."""

    def __init__(self, *arrays: Any) -> None:
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: int) -> Any:
        found = tuple(array[index % len(self)] for array in self.arrays)
        return found if len(found) > 1 else found[0]


class Reader:
    """As ONNX Runtime's CalibrationDataReader."""

    def __init__(self, items: list[Any]) -> None:
        self.items = iter(items)

    def get_next(self) -> Any:
        return next(self.items, None)


class Arrow:
    """What gives itself as a table, like the frames of pandas and polars."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self.columns = table.column_names

    def __arrow_c_stream__(self, schema: Any = None) -> Any:
        return self.table.__arrow_c_stream__(schema)


def loader(*arrays: Any, **options: Any) -> Any:
    tensors = [torch.from_numpy(array) for array in arrays]
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*tensors), **options)


def batches(*keys: Any) -> list[Any]:
    """Parts of the samples, each made by `keys[0]`."""
    return [keys[0](part) for part in PARTS]


def generator(items: Any) -> Iterator[Any]:
    yield from items


# Every form with the sizes of the batches that come out for batch=4, and whether it has labels.
FORMS: dict[str, tuple[Callable[[], Any], list[int], bool]] = {
    "array": (lambda: X, [4, 4, 2], False),
    "tensor": (lambda: torch.from_numpy(X), [4, 4, 2], False),
    "tensor with gradients": (lambda: torch.from_numpy(X.copy()).requires_grad_(), [4, 4, 2], False),
    "lists of numbers": (lambda: [[float(each) for each in row] for row in X], [4, 4, 2], False),
    "dict of arrays": (lambda: {"x": X, "more": ["text"]}, [4, 4, 2], False),
    "dict of tensors": (lambda: {"x": torch.from_numpy(X)}, [4, 4, 2], False),
    "other mapping": (lambda: UserDict(x=X), [4, 4, 2], False),
    "dict with the only array": (lambda: {"image": X}, [4, 4, 2], False),
    "pair of arrays": (lambda: (X, Y), [4, 4, 2], True),
    "table": (lambda: pa.table({"x": list(X)}), [4, 4, 2], False),
    "what gives itself as a table": (lambda: Arrow(pa.table({"x": list(X)})), [4, 4, 2], False),
    "list of dicts": (lambda: batches(lambda part: {"x": X[part]}), [4, 4, 2], False),
    "list of arrays": (lambda: batches(X.__getitem__), [4, 4, 2], False),
    "list of pairs": (lambda: batches(lambda part: (X[part], Y[part])), [4, 4, 2], True),
    "list of pairs of a dict and labels": (lambda: batches(lambda part: ({"x": X[part]}, Y[part])), [4, 4, 2], True),
    "list of samples": (lambda: list(X), [4, 4, 2], False),
    "list of samples with labels": (lambda: list(zip(X, Y, strict=True)), [4, 4, 2], True),
    "list of samples in dicts": (lambda: [{"x": row} for row in X], [4, 4, 2], False),
    "batches of other sizes": (lambda: [X[:7], X[7:]], [7, 3], False),
    "samples between batches": (lambda: [X[0], X[1], X[2:5], *X[5:]], [2, 3, 4, 1], False),
    "generator": (lambda: generator(batches(lambda part: {"x": X[part]})), [4, 4, 2], False),
    "generator of samples": (lambda: generator(X), [4, 4, 2], False),
    "reader": (lambda: Reader(batches(lambda part: {"x": X[part]})), [4, 4, 2], False),
    "zip": (lambda: zip(X, Y, strict=True), [4, 4, 2], True),
    "loader of tensors": (lambda: torch.utils.data.DataLoader(torch.from_numpy(X), batch_size=5), [5, 5], False),
    "loader of one tensor in a list": (lambda: loader(X, batch_size=4), [4, 4, 2], False),
    "loader of pairs": (lambda: loader(X, Y, batch_size=4), [4, 4, 2], True),
    "loader of dicts": (
        lambda: torch.utils.data.DataLoader([{"x": torch.from_numpy(row)} for row in X], batch_size=4),
        [4, 4, 2],
        False,
    ),
    "data set": (lambda: Samples(torch.from_numpy(X)), [4, 4, 2], False),
    "data set with labels": (lambda: Samples(torch.from_numpy(X), Y), [4, 4, 2], True),
    "data set of torch": (lambda: torch.utils.data.TensorDataset(torch.from_numpy(X)), [4, 4, 2], False),
}


@pytest.mark.parametrize(("make", "expected", "labelled"), FORMS.values(), ids=FORMS)
def test_every_form_gives_the_same_samples(make: Callable[[], Any], expected: list[int], labelled: bool) -> None:
    data = as_data(make(), [ROWS], batch=4)
    assert sizes(data) == expected
    assert (gathered(data) == X).all()
    assert gathered(data).dtype == np.float32
    assert data.labelled == labelled
    if labelled:
        assert (labels_of(data) == Y).all()
    assert_same_again(data)
    assert data.source.startswith("the ")


@pytest.mark.parametrize(("make", "expected", "labelled"), FORMS.values(), ids=FORMS)
def test_every_form_is_cut_where_the_model_fixes_its_batch(
    make: Callable[[], Any], expected: list[int], labelled: bool
) -> None:
    del expected
    data = as_data(make(), [FIXED])
    assert sizes(data) == [4, 4]
    assert (gathered(data) == X[:8]).all()
    assert not labelled or (labels_of(data) == Y[:8]).all()


@pytest.mark.parametrize(("make", "expected", "labelled"), FORMS.values(), ids=FORMS)
def test_every_form_can_be_capped(make: Callable[[], Any], expected: list[int], labelled: bool) -> None:
    del expected, labelled
    data = as_data(make(), [ROWS], batch=4, samples=6)
    assert (gathered(data) == X[:6]).all()


def test_data_is_returned_as_it_is(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=X)
    data = load(tmp_path / "data.npz", ROWS)
    assert as_data(data, [ROWS]) is data


@pytest.mark.parametrize("form", [str, Path])
def test_paths_are_those_of_load_data(tmp_path: Path, form: Callable[[Path], Any]) -> None:
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    data = as_data(form(tmp_path / "data.npz"), [ROWS], labels="y", batch=4)
    assert data.source == str(tmp_path / "data.npz")
    assert (gathered(data) == X).all()
    assert (labels_of(data) == Y).all()
    assert sizes(as_data("synthetic", [ROWS], samples=5)) == [5]


# -- labels


@pytest.mark.parametrize(
    "given",
    [
        {"x": X, "y": Y},
        [{"x": X[part], "y": Y[part]} for part in PARTS],
        [{"x": x, "y": y} for x, y in zip(X, Y, strict=True)],
        pa.table({"x": list(X), "y": Y}),
    ],
    ids=["dict", "batches", "samples", "table"],
)
def test_labels_under_a_key(given: Any) -> None:
    data = as_data(given, [ROWS], labels="y", batch=4)
    assert sizes(data) == [4, 4, 2]
    assert (gathered(data) == X).all()
    assert (labels_of(data) == Y).all()
    missing = "no (column|labels) 'yy'; did you mean 'y'"
    with pytest.raises(DataError, match=missing):
        as_data(given, [ROWS], labels="yy")


@pytest.mark.parametrize("given", [X, {"x": X}, torch.from_numpy(X)])
@pytest.mark.parametrize("labels", [Y, Y.tolist(), torch.from_numpy(Y)])
def test_labels_as_an_array(given: Any, labels: Any) -> None:
    data = as_data(given, [ROWS], labels=labels, batch=4)
    assert sizes(data) == [4, 4, 2]
    assert (labels_of(data) == Y).all()


def test_labels_of_samples_keep_their_shape() -> None:
    """Of one number they are [samples], of several [samples, ...]."""
    wide = np.arange(20).reshape(10, 2)
    assert labels_of(as_data(list(zip(X, wide, strict=True)), [ROWS])).shape == (10, 2)
    assert labels_of(as_data(list(zip(X, Y[:, None], strict=True)), [ROWS])).shape == (10,)
    assert labels_of(as_data((X[0], 3), [ROWS])).tolist() == [3]


@pytest.mark.parametrize(
    ("given", "labels", "says"),
    [
        (X, "y", "the array has no labels 'y'"),
        (list(X), "y", "item 0 of the list that was given is not a dict, so it has no 'y'"),
        (list(X), Y, "come with its items, as .input, label. pairs or in dicts"),
        ("synthetic", Y, "labels of synthetic are named"),
        ((X, Y[:7]), None, "different numbers of samples: 10 for 'x' along axis 0, 7 for 'labels' along axis 0"),
        ({"x": X}, Y[:7], "different numbers of samples: 10 for 'x' along axis 0, 7 for 'labels' along axis 0"),
        ((X, np.array(["a"] * 10)), None, "labels must be numbers, but they are str"),
    ],
)
def test_labels_that_cannot_be(given: Any, labels: Any, says: str) -> None:
    with pytest.raises((DataError, UsageError), match=says) as caught:
        as_data(given, [ROWS], labels=labels)
    assert "\n" not in str(caught.value)


# -- models with several inputs


@pytest.mark.parametrize(
    "given",
    [
        {"input_ids": TOKENS, "attention_mask": np.ones_like(TOKENS)},
        [{"input_ids": TOKENS[part], "attention_mask": np.ones_like(TOKENS)[part]} for part in PARTS],
        [{"input_ids": row, "attention_mask": np.ones_like(row), "text": "a"} for row in TOKENS],
        [(TOKENS[part], np.ones_like(TOKENS)[part]) for part in PARTS],
        loader(TOKENS, np.ones_like(TOKENS), batch_size=4),
        (TOKENS, np.ones_like(TOKENS)),
    ],
    ids=["dict", "batches", "samples", "in their order", "loader", "tuple"],
)
def test_two_inputs(given: Any) -> None:
    data = as_data(given, [IDS, MASK], batch=4)
    assert sizes(data) == [4, 4, 2]
    assert (gathered(data, "input_ids") == TOKENS).all()
    assert (gathered(data, "attention_mask") == 1).all()
    assert not data.labelled
    assert_same_again(data)


@pytest.mark.parametrize(
    "given",
    [
        loader(TOKENS, np.ones_like(TOKENS), Y, batch_size=4),
        [((TOKENS[part], np.ones_like(TOKENS)[part]), Y[part]) for part in PARTS],
        [((row, np.ones_like(row)), label) for row, label in zip(TOKENS, Y, strict=True)],
    ],
    ids=["loader", "batches", "samples"],
)
def test_two_inputs_and_labels(given: Any) -> None:
    data = as_data(given, [IDS, MASK], batch=4)
    assert sizes(data) == [4, 4, 2]
    assert (gathered(data, "input_ids") == TOKENS).all()
    assert (labels_of(data) == Y).all()


STATE = Port("h", "tensor(float)", (1, "b", 4))
FRAMES = Port("x", "tensor(float)", ("s", "b", 3))
TIME_MAJOR = with_batch_axes([FRAMES, STATE], [])[0]
XS = np.random.default_rng(1).standard_normal((7, 10, 3)).astype(np.float32)
HS = np.random.default_rng(2).standard_normal((1, 10, 4)).astype(np.float32)


def saved(folder: Path) -> str:
    np.savez(folder / "data.npz", x=XS, h=HS, y=Y)
    return str(folder / "data.npz")


def folder_of_samples(folder: Path) -> str:
    for index in range(10):
        np.savez(folder / f"{index}.npz", x=XS[:, index], h=HS[:, index], y=Y[index])
    return str(folder)


TIME_MAJOR_FORMS: dict[str, Callable[[Path], Any]] = {
    "npz": saved,
    "folder of samples": folder_of_samples,
    "dict": lambda _: {"x": XS, "h": HS, "y": Y},
    "batches": lambda _: [{"x": XS[:, part], "h": HS[:, part], "y": Y[part]} for part in PARTS],
    "samples": lambda _: [{"x": XS[:, index], "h": HS[:, index], "y": Y[index]} for index in range(10)],
    "table": lambda _: pa.table({"x": np.moveaxis(XS, 1, 0).tolist(), "h": np.moveaxis(HS, 1, 0).tolist(), "y": Y}),
}


@pytest.mark.parametrize("form", TIME_MAJOR_FORMS.values(), ids=TIME_MAJOR_FORMS)
def test_samples_along_other_axes(tmp_path: Path, form: Callable[[Path], Any]) -> None:
    """Along the second axis of both, [time, batch, features] and [layers, batch, hidden]."""
    data = as_data(form(tmp_path), TIME_MAJOR, labels="y", batch=4)
    found = list(data.batches())
    assert [batch.feed["x"].shape for batch in found] == [(7, 4, 3), (7, 4, 3), (7, 2, 3)]
    assert [batch.feed["h"].shape for batch in found] == [(1, 4, 4), (1, 4, 4), (1, 2, 4)]
    np.testing.assert_array_equal(np.concatenate([batch.feed["x"] for batch in found], 1), XS)
    np.testing.assert_array_equal(np.concatenate([batch.feed["h"] for batch in found], 1), HS)
    assert (labels_of(data) == Y).all()
    assert_same_again(data)


@pytest.mark.parametrize("form", ["npz", "dict"])
def test_samples_along_other_axes_that_do_not_fit_are_named(tmp_path: Path, form: str) -> None:
    given: Any = {"x": XS, "h": np.moveaxis(HS, 1, 0)}
    if form == "npz":
        np.savez(tmp_path / "data.npz", **given)
        given = tmp_path / "data.npz"
    with pytest.raises(
        DataError, match=r"'h' is float\[1, b, 4\] with the samples along axis 1, but the data is 10x1x4; .* module:"
    ):
        as_data(given, TIME_MAJOR)
    with pytest.raises(DataError, match=r"10 for 'x' along axis 1, 9 for 'h' along axis 1; .* module:function"):
        as_data({"x": XS, "h": HS[:, :9]}, TIME_MAJOR)
    with pytest.raises(
        DataError, match=r"'h' is float\[1, b, 4\] with the samples along axis 1, but the data is 1x10x5; .* module:"
    ):
        as_data({"x": XS, "h": np.zeros((1, 10, 5), "f")}, TIME_MAJOR)


@pytest.mark.parametrize("form", ["npz", "dict"])
def test_calls_that_are_stacked(tmp_path: Path, form: str) -> None:
    """What was fed call by call, with a batch of one, and stacked along an axis before all others."""
    states = np.moveaxis(HS, 1, 0)[:, :, None]
    for x in (XS, np.moveaxis(XS, 1, 0)[:, :, None]):  # one input as it is fed, or each of them
        given: Any = {"x": x, "h": states, "y": Y}
        if form == "npz":
            np.savez(tmp_path / "data.npz", **given)
            given = tmp_path / "data.npz"
        data = as_data(given, TIME_MAJOR, labels="y", batch=4)
        np.testing.assert_array_equal(np.concatenate([batch.feed["x"] for batch in data.batches()], 1), XS)
        np.testing.assert_array_equal(np.concatenate([batch.feed["h"] for batch in data.batches()], 1), HS)
        assert (labels_of(data) == Y).all()
        assert_same_again(data)


def test_calls_of_several_samples_are_not_stacked() -> None:
    """Which of two axes would enumerate them?"""
    with pytest.raises(DataError, match="the data is 5x1x2x4"):
        as_data({"x": XS, "h": np.zeros((5, 1, 2, 4), "f")}, TIME_MAJOR)


def test_what_all_samples_share() -> None:
    """A number beside states, and one row where the model has no room for more."""
    rate = Port("sr", "tensor(int64)", (1,))
    ports = with_batch_axes([Port("x", "tensor(float)", ("batch", 3)), rate], [])[0]
    data = as_data({"x": X, "sr": np.array([16000])}, ports, batch=4)
    assert sizes(data) == [4, 4, 2]
    assert all(batch.feed["sr"].tolist() == [16000] for batch in data.batches())
    ports = with_batch_axes([ROWS, Port("size", "tensor(float)", (1, 2))], [])[0]
    data = as_data({"x": X, "size": np.ones((1, 2), "f")}, ports)
    assert [batch.feed["x"].shape for batch in data.batches()] == [(1, 3)] * 10
    each = as_data({"x": X, "size": np.arange(20, dtype="f").reshape(10, 2)}, ports)
    assert [batch.feed["size"][0, 0] for batch in each.batches()] == [*range(0, 20, 2)]


def test_what_all_samples_share_cannot_change() -> None:
    with pytest.raises(DataError, match="'s' is one array for all samples, but it changes; use --batch 1"):
        as_data([{"x": row, "s": index} for index, row in enumerate(X)], [ROWS, Port("s", "tensor(int64)", ())])


GRAPH = with_batch_axes([Port("x", "tensor(float)", ("nodes", 5)), Port("e", "tensor(int64)", (2, "edges"))], [])[0]


@pytest.mark.parametrize("form", ["npz", "dict", "list"])
def test_a_graph_is_fed_as_it_is(tmp_path: Path, form: str) -> None:
    given: Any = {"x": np.ones((6, 5), "f"), "e": np.zeros((2, 40), int), "y": np.arange(6)}
    if form == "npz":
        np.savez(tmp_path / "data.npz", **given)
        given = tmp_path / "data.npz"
    data = as_data([given, given] if form == "list" else given, GRAPH, labels="y", batch=4)
    shapes = [(batch.feed["x"].shape, batch.feed["e"].shape, len(batch.labels)) for batch in data.batches()]  # type: ignore[arg-type]
    assert shapes == [((6, 5), (2, 40), 6)] * (2 if form == "list" else 1)
    assert sizes(as_data([given] * 5, GRAPH, samples=3) if form != "npz" else data) == [6] * (1 if form == "npz" else 3)


def test_columns_of_numbers() -> None:
    """As models of scikit-learn take them: [batch, 1] each."""
    ports = [Port(name, "tensor(float)", (None, 1)) for name in "ab"]
    for given in ({"a": X[:, 0], "b": X[:, 1]}, pa.table({"a": X[:, 0], "b": X[:, 1]})):
        data = as_data(given, ports, batch=4)
        assert sizes(data) == [4, 4, 2]
        assert (gathered(data, "b")[:, 0] == X[:, 1]).all()


def test_texts() -> None:
    words = Port("w", "tensor(string)", ("batch", 2))
    given = np.array([["a", "bc"], ["d", "é"]] * 3)
    for each in (given, given.astype(object), list(given), generator(given)):
        found = gathered(as_data(each, [words], batch=4), "w")
        assert found.dtype == object
        assert (found == given).all()


def test_half_precision_of_torch() -> None:
    """numpy has no bfloat16, so it is widened."""
    data = as_data(torch.ones((3, 3), dtype=torch.bfloat16), [ROWS])
    assert gathered(data).dtype == np.float32


# -- once and again


def test_a_loader_that_shuffles_gives_the_same_in_every_pass() -> None:
    torch.manual_seed(0)
    given = loader(X, Y, batch_size=4, shuffle=True)
    data = as_data(given, [ROWS])
    assert_same_again(data)
    assert (labels_of(data) != Y).any()
    assert sorted(labels_of(data)) == list(Y)
    np.testing.assert_array_equal(gathered(data), X[labels_of(data)])


def test_a_generator_is_gone_through_once() -> None:
    drawn: list[int] = []

    def items() -> Iterator[Any]:
        for number in itertools.count():
            drawn.append(number)
            yield np.full(3, number, np.float32)

    data = as_data(items(), [ROWS], samples=6, batch=4)
    for _ in range(3):
        assert gathered(data)[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert len(drawn) == 8, "two batches of samples, the end of which is not needed"


def test_augmentation_is_drawn_once() -> None:
    rng = np.random.default_rng(0)

    class Noisy(Samples):
        def __getitem__(self, index: int) -> Any:
            return super().__getitem__(index) + rng.standard_normal(3).astype(np.float32)

    assert_same_again(as_data(Noisy(X), [ROWS]))


def test_lists_are_not_copied() -> None:
    given = [np.zeros((100, 3), np.float32) for _ in range(100)]
    tracemalloc.start()
    try:
        data = as_data(given, [ROWS])
        sizes(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 60_000  # they take 120 kB


def test_memory_does_not_grow_with_what_a_generator_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "MEMORY_BYTES", 100_000)
    monkeypatch.setattr(stored.tempfile, "tempdir", str(tmp_path))
    port = Port("x", "tensor(float)", ("batch", 1000))
    peaks = []
    for count in (100, 400):
        tracemalloc.start()
        try:
            data = as_data((np.full((10, 1000), number, "f") for number in range(count)), [port], labels=None)
            numbers = [float(batch.feed["x"][0, 0]) for batch in data.batches()]
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert numbers == list(range(count))
    assert peaks[1] < 1.2 * peaks[0]
    assert peaks[1] < 1_000_000  # all of it takes 16 MB
    assert_same_again(data)
    assert len(list(tmp_path.iterdir())) == 1, "the folder of the first data is away with it"
    del data
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_what_goes_to_a_folder_comes_back_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    given = [{"x": XS[:, part], "h": HS[:, part], "y": Y[part]} for part in PARTS]
    expected = list(as_data(given, TIME_MAJOR, labels="y").batches())
    monkeypatch.setattr(stored, "MEMORY_BYTES", 1000)
    found = list(as_data(generator(given), TIME_MAJOR, labels="y").batches())
    for one, other in zip(expected, found, strict=True):
        assert dict(one.axes) == dict(other.axes) == {"x": 1, "h": 1}
        for name, array in one.feed.items():
            np.testing.assert_array_equal(array, other.feed[name])
        np.testing.assert_array_equal(one.labels, other.labels)


def test_torch_is_not_imported_for_it() -> None:
    code = (
        "import sys, numpy as np\n"
        "from onnxprune.data.given import as_data\n"
        "from onnxprune.model.signature import Port\n"
        "as_data(iter([{'x': np.ones((2, 3), 'f')}]), [Port('x', 'tensor(float)', ('batch', 3))])\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# -- what does not fit


@pytest.mark.parametrize("given", [None, object(), b"bytes", {1, 2}, lambda: X, Samples])
def test_other_types_are_refused_with_what_is_accepted(given: Any) -> None:
    with pytest.raises(WrongTypeError, match=r"DataLoader or Dataset; .* not as") as caught:
        as_data(given, [ROWS])
    assert isinstance(caught.value, TypeError)
    assert "\n" not in str(caught.value)


def broken() -> Iterator[Any]:
    yield X
    raise RuntimeError("disk\nfull")


NAN = np.where(np.arange(30).reshape(10, 3) == 29, np.nan, X).astype(np.float32)


@pytest.mark.parametrize(
    ("given", "ports", "says"),
    [
        ({"x": X, "xx": X}, [Port("xs", "tensor(float)", ("batch", 3))], "no array for input 'xs' .*did you mean 'x"),
        ({"input_ids": TOKENS, "atention_mask": TOKENS}, [IDS, MASK], "'attention_mask' .*mean 'atention_mask'"),
        (
            [{"input_ids": TOKENS, "mask": TOKENS}],
            [IDS, MASK],
            "item 0 of the list .*'attention_mask'.*: input_ids, mask",
        ),
        (X, [IDS, MASK], "the array can be one input only, but the model has 'input_ids' .*; give a dict of arrays"),
        (list(X), [IDS, MASK], r"item 0 .* has 1 parts; expected \{'input_ids': array, 'attention_mask': array\}"),
        (X[:, :2], [ROWS], r"'x' is float\[batch, 3\], but the data is 10x2"),
        (X[None], [ROWS], r"'x' is float\[batch, 3\], but the data is 1x10x3"),
        (X[0, 0], [ROWS], "the data is a single number"),
        ([X[:, :2]], [ROWS], r"the list that was given: input 'x' is float\[batch, 3\], but the data is 10x2"),
        ([(X, Y, Y)], [ROWS], "item 0 of the list that was given has 3 parts; expected"),
        (["a"], [ROWS], "item 0 of the list that was given is a str; expected"),
        ([X, None], [ROWS], "item 1 of the list that was given is None; expected"),
        ([{"x": [[1.0, 2.0], [3.0]]}], [ROWS], "'x' of item 0 .* cannot be made an array: ValueError"),
        ([{"x": [object()]}], [ROWS], "'x' of item 0 of the list .* is a list, not an array of numbers or texts"),
        ({"x": object()}, [ROWS], "'x' of the dict of arrays is a object, not an array"),
        ([X[0], X[1, :2]], [ROWS], "but the data is 2"),
        (
            [TOKENS[0], TOKENS[1, :1]],
            [IDS],
            "'input_ids' are 2 and 1, apart from axis 0; .*module:function",
        ),
        (NAN, [ROWS], "1 of 30 values for input 'x' are NaN"),
        (generator(NAN), [ROWS], "values for input 'x' are NaN"),
        (X.astype(int), [ROWS], "the data is int64; convert it"),
        ([], [ROWS], "the list that was given has no samples in it"),
        ({}, [ROWS], "no array for input 'x'"),
        (generator([]), [ROWS], "the generator that was given has no samples in it"),
        (X[:0], [ROWS], "no samples in it"),
        (loader(X[:3], batch_size=2), [FIXED], "fewer samples than the 4 that the model takes at a time"),
        (broken(), [ROWS], "the generator that was given failed: RuntimeError: disk"),
        (pa.table({"a": Y, "b": Y}), [ROWS], "has no column for input 'x' .*there are: a, b"),
        (X, [], "the model has no inputs"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(given: Any, ports: list[Port], says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        list(as_data(given, ports).batches())
    assert "\n" not in str(caught.value)


def test_an_exhausted_generator() -> None:
    given = generator(X)
    as_data(given, [ROWS])
    with pytest.raises(DataError, match="no samples in it"):
        as_data(given, [ROWS])


def test_errors_of_this_package_pass_through() -> None:
    def items() -> Iterator[Any]:
        raise UsageError("own words")
        yield

    with pytest.raises(UsageError, match=r"^own words$"):
        as_data(items(), [ROWS])


@pytest.mark.parametrize("options", [{"samples": 0}, {"batch": 0}])
def test_impossible_numbers(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        as_data(X, [ROWS], **options)


def test_sizes_of_axes_are_obeyed() -> None:
    ids = Port("x", "tensor(float)", ("batch", "n"))
    assert isinstance(as_data(X, [ids], sizes={"n": 3}), Data)
    with pytest.raises(DataError, match=r"float\[batch, 4\]"):
        as_data(X, [ids], sizes={"n": 4})
    assert sizes(as_data(X, [ids], sizes={"batch": 5})) == [5, 5]
