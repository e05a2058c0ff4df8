"""Parquet and Arrow files, and what `save_to_disk` of Hugging Face's datasets writes (5.2 was tried)."""

from __future__ import annotations

import gc
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxprune.data.pixels import ImageOptions
from onnxprune.errors import DataError
from onnxprune.model.signature import Port
from tests.data.harness import IDS, IMAGES, MASK, ROWS, assert_same_again, gathered, labels_of, load, sizes

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed; it comes with the extra 'data'")
pytest.importorskip("pyarrow.parquet")
Image = pytest.importorskip("PIL.Image", reason="pillow is not installed; it comes with the extra 'data'")

RNG = np.random.default_rng(0)
X = RNG.standard_normal((10, 3)).astype(np.float32)
Y = np.arange(10)
CUBES = Port("x", "tensor(float)", (None, 2, 3))


def table(**columns: Any) -> Any:
    return pa.table(columns)


def write(path: Path, content: Any, kind: str) -> Path:
    """A table as parquet, as an Arrow file, or as the stream that Hugging Face writes."""
    if kind == "parquet":
        pa.parquet.write_table(content, path, row_group_size=4)
    else:
        new = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
        with new(str(path), content.schema) as writer:
            writer.write_table(content, max_chunksize=4)
    return path


@pytest.mark.parametrize(
    ("name", "kind"), [("t.parquet", "parquet"), ("t.arrow", "file"), ("t.arrow", "stream")], ids=lambda each: each
)
def test_kinds_of_files(tmp_path: Path, name: str, kind: str) -> None:
    path = write(tmp_path / name, table(x=X.tolist(), y=Y, text=["t"] * 10), kind)
    data = load(path, ROWS, labels="y", batch=3)
    assert sizes(data) == [3, 3, 3, 1]
    assert np.allclose(gathered(data), X)
    assert (labels_of(data) == Y).all()
    assert data.labelled
    assert_same_again(data)


def test_a_folder_of_files_in_order(tmp_path: Path) -> None:
    for part in range(2):
        write(tmp_path / f"{part}.parquet", table(x=X[5 * part : 5 * part + 5].tolist()), "parquet")
    data = load(tmp_path, ROWS, batch=4)
    assert sizes(data) == [4, 4, 2]
    assert np.allclose(gathered(data), X)


def saved_dataset(folder: Path) -> Path:
    """As `Dataset.save_to_disk` does, with its cache of another state left in the folder."""
    folder.mkdir(parents=True)
    names = [f"data-0000{part}-of-00002.arrow" for part in range(2)]
    for part, name in enumerate(names):
        write(folder / name, table(x=X[5 * part : 5 * part + 5].tolist(), label=Y[5 * part : 5 * part + 5]), "stream")
    write(folder / "cache-1234.arrow", table(x=X.tolist(), label=Y), "stream")
    (folder / "dataset_info.json").write_text("{}")
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    return folder


def test_a_saved_dataset(tmp_path: Path) -> None:
    data = load(saved_dataset(tmp_path / "digits"), ROWS, labels="label")
    assert np.allclose(gathered(data), X)
    assert (labels_of(data) == Y).all()


def test_several_saved_datasets(tmp_path: Path) -> None:
    for split in ("train", "test"):
        saved_dataset(tmp_path / split)
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(DataError, match=r"several tables; give one of them: .*test, .*train"):
        load(tmp_path, ROWS)


def test_a_state_that_says_nothing(tmp_path: Path) -> None:
    folder = saved_dataset(tmp_path / "digits")
    (folder / "state.json").write_text("{}")
    with pytest.raises(DataError, match=r"state\.json does not name the data files"):
        load(folder, ROWS)


@pytest.mark.parametrize(
    "column",
    [
        RNG.standard_normal((10, 2, 3)).tolist(),
        pa.array(RNG.standard_normal((10, 2, 3)).tolist(), pa.list_(pa.list_(pa.float64(), 3), 2)),
        pa.array(RNG.standard_normal((10, 2, 3)).tolist(), pa.large_list(pa.list_(pa.float32()))),
        pa.FixedShapeTensorArray.from_numpy_ndarray(RNG.standard_normal((10, 2, 3)).astype(np.float32)),
    ],
    ids=["lists", "fixed lists", "large lists", "tensors"],
)
def test_lists_are_axes(tmp_path: Path, column: Any) -> None:
    written = table(x=column)
    data = load(write(tmp_path / "t.arrow", written, "stream"), CUBES, batch=3)
    expected = column.to_numpy_ndarray() if hasattr(column, "to_numpy_ndarray") else written["x"].to_pylist()
    assert np.allclose(gathered(data), np.array(expected))


def test_integers_and_several_inputs(tmp_path: Path) -> None:
    ids = RNG.integers(0, 9, (10, 4)).astype(np.int32)
    written = table(input_ids=ids.tolist(), attention_mask=np.ones_like(ids).tolist())
    data = load(write(tmp_path / "t.parquet", written, "parquet"), IDS, MASK)
    assert (gathered(data, "input_ids") == ids).all()
    assert gathered(data, "attention_mask").dtype == np.int64


def encoded(*size: int) -> tuple[bytes, Any]:
    pixels = RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue(), pixels


@pytest.mark.parametrize("wrap", [lambda b: {"bytes": b, "path": None}, lambda b: b], ids=["struct", "bytes"])
def test_encoded_images(tmp_path: Path, wrap: Any) -> None:
    images = [encoded(8, 8) for _ in range(5)]
    written = table(image=[wrap(content) for content, _ in images], label=range(5))
    path = write(tmp_path / "t.parquet", written, "parquet")
    data = load(path, IMAGES, labels="label", images=ImageOptions(scale=1.0), batch=2)
    assert sizes(data) == [2, 2, 1]
    assert (gathered(data, "pixels") == np.stack([pixels for _, pixels in images]).transpose(0, 3, 1, 2)).all()
    assert not load(path, IMAGES).labelled, "the images are found beside a column that no one asked for"


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"y": X.tolist(), "z": Y}, r"no column for input 'x' \(float\[batch, 3\]\); there are: y, z"),
        ({"x": [[1.0, 2.0, 3.0], None]}, "column 'x' has 1 entries without a value"),
        ({"x": [[1.0, 2.0, 3.0], [1.0, None, 2.0]]}, "column 'x' has 1 entries without a value"),
        ({"x": [[1.0, 2.0, 3.0], [1.0]]}, "column 'x' has lists of 1 to 3 entries; pad them"),
        ({"x": ["one", "two"]}, "but the data is 2"),
        ({"x": [[1.0, 2.0, float("nan")]]}, "NaN"),
        ({"x": pa.array([], pa.list_(pa.float32()))}, "no samples"),
    ],
)
def test_columns_that_do_not_fit(tmp_path: Path, columns: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        load(write(tmp_path / "t.parquet", table(**columns), "parquet"), ROWS)


def test_a_missing_column_of_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", table(x=X.tolist(), label=Y), "parquet")
    with pytest.raises(DataError, match="no column 'lable'; did you mean 'label'"):
        load(path, ROWS, labels="lable")


def test_images_that_are_elsewhere_or_of_several_sizes(tmp_path: Path) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    elsewhere = pa.array([{"bytes": None, "path": "/etc/passwd"}], kind)
    with pytest.raises(DataError, match="an image without its bytes"):
        load(write(tmp_path / "a.parquet", table(image=elsewhere), "parquet"), IMAGES)
    free = Port("pixels", "tensor(float)", (None, 3, None, None))
    images = [encoded(8, 8)[0], encoded(8, 9)[0]]
    path = write(tmp_path / "b.parquet", table(image=images), "parquet")
    with pytest.raises(DataError, match=r"images of several sizes, like \(3, 8, 8\) and \(3, 8, 9\)"):
        load(path, free)
    assert sizes(load(path, free, batch=1)) == [1, 1]


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow"])
@pytest.mark.parametrize("content", [b"", b"something else", b"PAR1"])
def test_files_that_are_something_else(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name} cannot be read") as caught:
        load(tmp_path / name, ROWS)
    assert "\n" not in str(caught.value)


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    port = Port("x", "tensor(float)", (None, 1000))
    for rows in (400, 4000):
        column = pa.FixedSizeListArray.from_arrays(pa.array(RNG.standard_normal(rows * 1000)), 1000)
        pa.parquet.write_table(table(x=column), tmp_path / f"{rows}.parquet", row_group_size=200)
    del column
    peaks = []
    for rows in (400, 4000):
        data = load(tmp_path / f"{rows}.parquet", port, batch=16)
        gc.collect()
        before = pa.total_allocated_bytes()
        peaks.append(max(pa.total_allocated_bytes() - before for _ in data.batches()))
    assert 0 < peaks[1] < 1.5 * peaks[0]
    assert peaks[1] < 10_000_000  # the column takes 32 MB
