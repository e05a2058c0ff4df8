"""What holds for all data: batches of the right size, checked and cast; one clear line for what does not fit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxprune.data.pixels import ImageOptions
from onnxprune.errors import DataError, MissingExtraError, UsageError
from onnxprune.model.signature import Port
from tests.data.harness import (
    FIXED,
    IDS,
    IMAGES,
    MASK,
    ROWS,
    assert_same_again,
    gathered,
    labels_of,
    load,
    sizes,
)

X = np.arange(30, dtype=np.float32).reshape(10, 3)


def saved(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


@pytest.mark.parametrize(
    ("port", "options", "expected"),
    [
        (ROWS, {}, [10]),
        (ROWS, {"batch": 4}, [4, 4, 2]),
        (ROWS, {"batch": 5}, [5, 5]),
        (ROWS, {"batch": 4, "samples": 6}, [4, 2]),
        (ROWS, {"batch": 4, "samples": 8}, [4, 4]),
        (ROWS, {"samples": 100}, [10]),
        (ROWS, {"sizes": {"batch": 3}}, [3, 3, 3]),
        (FIXED, {}, [4, 4]),
        (FIXED, {"batch": 32, "samples": 9}, [4, 4]),
        (FIXED, {"samples": 7}, [4]),
    ],
)
def test_batches(tmp_path: Path, port: Port, options: dict[str, Any], expected: list[int]) -> None:
    data = load(saved(tmp_path, x=X, y=np.arange(10)), port, labels="y", **options)
    assert sizes(data) == expected
    assert (gathered(data) == X[: sum(expected)]).all()
    assert (labels_of(data) == np.arange(sum(expected))).all()
    assert data.labelled
    assert data.source == str(tmp_path / "data.npz")
    assert_same_again(data)


def test_without_labels(tmp_path: Path) -> None:
    data = load(saved(tmp_path, x=X), ROWS)
    assert not data.labelled
    assert next(data.batches()).labels is None


def test_several_inputs_and_one_that_is_the_same_for_all(tmp_path: Path) -> None:
    scale = Port("scale", "tensor(float)", ())
    data = load(saved(tmp_path, x=X, scale=np.float32(2), more=X), ROWS, scale, batch=4)
    assert [set(batch.feed) for batch in data.batches()] == [{"x", "scale"}] * 3
    assert all(batch.feed["scale"] == 2 for batch in data.batches())


@pytest.mark.parametrize(
    ("type_name", "given", "taken"),
    [
        ("float", np.float64([[0.1, 1, 2]]), np.float32),
        ("float", np.float16([[0.1, 1, 2]]), np.float32),
        ("float16", np.float32([[0.1, 1, 2]]), np.float16),
        ("float", X[:1].astype(">f4"), np.float32),
        ("int64", np.int32([[1, 2, 3]]), np.int64),
        ("int32", np.int64([[1, 2, 3]]), np.int32),
        ("int64", np.bool_([[1, 0, 1]]), np.int64),
        ("bool", np.int64([[1, 0, 1]]), np.bool_),
    ],
)
def test_casts_that_lose_nothing(tmp_path: Path, type_name: str, given: Any, taken: Any) -> None:
    array = gathered(load(saved(tmp_path, x=given), Port("x", f"tensor({type_name})", (None, 3))))
    assert array.dtype == np.dtype(taken)
    assert (array == given.astype(taken)).all()


@pytest.mark.parametrize(
    ("type_name", "given", "says"),
    [
        ("float", np.uint8([[1, 2, 3]]), r"'x' is float\[\?, 3\], but the data is uint8; convert it"),
        ("float", np.int64([[1, 2, 3]]), "int64; convert"),
        ("int64", np.float32([[1, 2, 3]]), "float32; convert"),
        ("float", np.array([["a", "b", "c"]]), "str"),
        ("int32", np.int64([[1, 2, 1 << 40]]), "cannot hold the data's values 1 to 1099511627776"),
        ("uint8", np.int64([[1, 2, -3]]), "cannot hold the data's values -3 to 2"),
        ("bool", np.int64([[0, 1, 2]]), "cannot hold the data's values 0 to 2"),
        ("float16", np.float32([[0, 1, 1e6]]), "cannot hold"),
        ("float", np.float32([[0, np.nan, np.inf]]), "2 of 3 values for input 'x' are NaN or infinite"),
        ("float", np.float32([[1, 2, 3, 4]]), r"'x' is float\[\?, 3\], but the data is 1x4"),
        ("float", np.float32([[[1, 2, 3], [4, 5, 6]]]), "the data is 1x2x3"),
        ("float", np.zeros((0, 3), np.float32), "no samples"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, type_name: str, given: Any, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        load(saved(tmp_path, x=given), Port("x", f"tensor({type_name})", (None, 3)))
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "data.npz") in str(caught.value)


def test_nan_far_into_the_data_is_found_on_the_way(tmp_path: Path) -> None:
    x = X.copy()
    x[9, 1] = np.nan
    data = load(saved(tmp_path, x=x), ROWS, batch=4)
    passed = data.batches()
    assert len(next(passed).feed["x"]) == len(next(passed).feed["x"]) == 4
    with pytest.raises(DataError, match="NaN"):
        next(passed)
    assert sizes(load(saved(tmp_path, x=x), ROWS, samples=9, batch=3)) == [3, 3, 3]


def test_a_missing_input_is_named_with_what_is_near(tmp_path: Path) -> None:
    ids = np.ones((2, 5), np.int64)
    with pytest.raises(DataError, match=r"'attention_mask' \(int64\[batch, length\]\); did you mean 'atention_mask'"):
        load(saved(tmp_path, input_ids=ids, atention_mask=ids), IDS, MASK)


def test_fewer_samples_than_the_model_takes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="fewer samples than the 4 that the model takes at a time"):
        load(saved(tmp_path, x=X[:3]), FIXED)


def test_first_axes_that_are_no_samples(tmp_path: Path) -> None:
    state = Port("state", "tensor(float)", (2, 3))
    with pytest.raises(
        DataError,
        match=r"axis 0 of 'x' .* axis 0 of 'state' .* module:function",
    ):
        load(saved(tmp_path, x=X, state=X), FIXED, state)


def test_labels_that_are_no_numbers(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="labels must be numbers, but they are str"):
        load(saved(tmp_path, x=X[:2], y=np.array(["cat", "dog"])), ROWS, labels="y")


@pytest.mark.parametrize("options", [{"samples": 0}, {"batch": 0}, {"samples": -1}])
def test_impossible_numbers(tmp_path: Path, options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        load(saved(tmp_path, x=X), ROWS, **options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"images": ImageOptions(mean=(0.5,))}, "an option for images"),
        ({"tokenizer": Path("tokenizer.json")}, "--tokenizer"),
    ],
)
def test_options_without_a_meaning(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=f"taken as an .npz file .* {says} means nothing"):
        load(saved(tmp_path, x=X), ROWS, **options)


def test_labels_mean_nothing_for_made_up_data() -> None:
    with pytest.raises(UsageError, match="synthetic, made up, for which --labels means nothing"):
        load("synthetic", ROWS, labels="y")


def test_a_model_without_inputs() -> None:
    with pytest.raises(DataError, match="no inputs"):
        load("synthetic")


@pytest.mark.parametrize("spec", ["nowhere.npz", "nowhere.txt", "nowhere.parquet", "nowhere", "nowhere/"])
def test_what_does_not_exist(spec: str) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load(spec, ROWS)


def test_what_no_source_reads(tmp_path: Path) -> None:
    (tmp_path / "data.xls").write_bytes(b"x")
    for path in (tmp_path / "data.xls", tmp_path):
        with pytest.raises(DataError, match=r"is not data that can be read; --data takes an .npz file .* synthetic"):
            load(path, ROWS)


@pytest.mark.parametrize(
    ("package", "name", "port", "options"),
    [
        ("PIL", "images/a.png", IMAGES, {}),
        ("pyarrow", "t.parquet", ROWS, {}),
        ("tokenizers", "t.txt", IDS, {"tokenizer": Path("tokenizer.json")}),
    ],
)
def test_missing_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, name: str, port: Port, options: dict[str, Any]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    with pytest.raises(MissingExtraError, match=r"pip install 'onnxprune\[data\]'"):
        load(path if path.parent == tmp_path else path.parent, port, **options)
