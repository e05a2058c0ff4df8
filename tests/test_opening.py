"""Files as they lie on disks, and what is said when a block fails over one."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from onnxprune.analysis.inspect import blaming
from onnxprune.errors import ModelError
from onnxprune.model.check import check_model
from onnxprune.pipeline.run import compress
from tests.conftest import Build


def test_a_failure_over_no_model_blames_the_file(tmp_path: Path) -> None:
    path = tmp_path / "notes.onnx"
    path.write_text("no model")
    with pytest.raises(ModelError, match="not a valid ONNX model"), blaming(path):
        raise KeyError("x")


def test_memory_that_runs_out_is_not_the_fault_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "notes.onnx"
    path.write_text("no model")
    with pytest.raises(MemoryError), blaming(path):
        raise MemoryError


LAYERS = """
    net (float[n, 16] x) => (float[n, 5] y)
    <float[16, 40] w, float[40, 5] v>
    { h = MatMul(x, w)  r = Relu(h)  y = MatMul(r, v) }
"""


def halved(path: Path) -> None:
    compress(path, ratio=0.5, recover="none").save(path.parent / "small.onnx")
    check_model(path)


def with_data_apart(path: Path) -> Path:
    """The same model, its weights in `<name>.data`."""
    location = f"{path.stem}.data"
    onnx.save(onnx.load(path), path, save_as_external_data=True, location=location, size_threshold=0)
    return path.with_name(location)


def test_file_with_several_hard_links(build: Build, tmp_path: Path) -> None:
    """Installers link the files of packages into many environments."""
    path = build(LAYERS)
    (tmp_path / "link.onnx").hardlink_to(path)
    halved(tmp_path / "link.onnx")


def test_data_with_several_hard_links(build: Build, tmp_path: Path) -> None:
    path = build(LAYERS)
    (tmp_path / "link.data").hardlink_to(with_data_apart(path))
    halved(path)


def test_links_into_a_folder_of_downloads(build: Build, tmp_path: Path) -> None:
    """As the cache of the Hugging Face Hub has them: the model and its data are links to files named by their hash."""
    path = build(LAYERS)
    data = with_data_apart(path)
    for folder in ("blobs", "snapshot"):
        (tmp_path / folder).mkdir()
    for file, blob in ((path, "a1"), (data, "b2")):
        (tmp_path / "snapshot" / file.name).symlink_to(Path("..") / "blobs" / blob)
        file.rename(tmp_path / "blobs" / blob)
    halved(tmp_path / "snapshot" / path.name)
