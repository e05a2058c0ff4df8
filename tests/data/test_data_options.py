"""--data and the options beside it, as a command takes them."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

from onnxprune.cli.options import fields
from onnxprune.data.base import Data
from onnxprune.data.options import DataOptions, data_from
from onnxprune.errors import DataError, UsageError
from onnxprune.evaluation.options import MeasureOptions
from onnxprune.model.file import open_model
from tests.conftest import Build
from tests.data.harness import gathered, labels_of, sizes

GRAPH = "net (float[batch, 3, height, width] pixels) => (float[batch, 3, height, width] y) { y = Relu(pixels) }"


@pytest.fixture
def model(build: Build) -> Path:
    return build(GRAPH)


def parse(model: Path, *args: str, seed: int = 0) -> tuple[Data | None, dict[str, Any]]:
    """What `data_from` makes of a command line, and the options that it left."""
    found: list[Any] = []

    @click.command()
    @fields(DataOptions)
    @fields(MeasureOptions, "input_shape")
    @click.option("--other")
    def command(input_shape: tuple[str, ...], **options: Any) -> None:
        opened = open_model(model)
        sizes = MeasureOptions(input_shape=input_shape).sizes(opened)
        found.append((data_from(options, opened, seed, sizes), options))

    result = CliRunner().invoke(command, args, standalone_mode=False)
    if result.exception:
        raise result.exception
    return found[0]  # type: ignore[no-any-return]


def test_without_data(model: Path) -> None:
    assert parse(model, "--other", "kept") == (None, {"other": "kept"})
    assert parse(model, "--input-shape", "pixels:1x3x8x8")[0] is None


def test_arrays(model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", pixels=np.ones((9, 3, 4, 4)), y=np.arange(9))
    data, rest = parse(
        model,
        "--data",
        str(tmp_path / "data.npz"),
        "--labels",
        "y",
        "--samples",
        "7",
        "--batch",
        "3",
        "--other",
        "kept",
    )
    assert data is not None
    assert sizes(data) == [3, 3, 1]
    assert labels_of(data).tolist() == list(range(7))
    assert rest == {"other": "kept"}


def test_synthetic_data_of_given_sizes(model: Path) -> None:
    arrays = []
    for seed in (0, 1):
        data, _ = parse(model, "--data", "synthetic", "--input-shape", "pixels:?x3x6x5", "--samples", "4", seed=seed)
        assert data is not None
        arrays.append(gathered(data, "pixels"))
    assert arrays[0].shape == (4, 3, 6, 5)
    assert (arrays[0] != arrays[1]).any()


def test_synthetic_data_knows_the_model(build: Build) -> None:
    model = build("net (int64[batch, 9] ids) => (float[batch, 9, 2] y) <float[700, 2] w> { y = Gather(w, ids) }")
    data, _ = parse(model, "--data", "synthetic")
    assert data is not None
    assert 600 < gathered(data, "ids").max() < 700


def test_images(model: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed; it comes with the extra 'data'")
    (tmp_path / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (10, 14, 3), dtype=np.uint8)
    image.fromarray(pixels).save(tmp_path / "images" / "a.png")
    options = "--resize 10 --crop 4x6 --scale 1 --mean 1,2,3 --std 2 --layout NCHW --channel-order BGR"
    data, rest = parse(model, "--data", str(tmp_path / "images"), *options.split())
    assert data is not None
    expected = (pixels[3:7, 4:10, ::-1] - np.array([1, 2, 3])) / 2
    assert np.allclose(gathered(data, "pixels")[0], expected.transpose(2, 0, 1))
    assert rest == {"other": None}


@pytest.mark.parametrize("name", ["--labels", "--samples", "--batch", "--mean", "--resize", "--tokenizer"])
def test_options_without_data(model: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} says how to read --data"):
        parse(model, name, "3")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--resize", "8x"], "not a size like 256 or 224x288"),
        (["--crop", "0"], "not a size"),
        (["--resize", "1x2x3"], "not a size"),
        (["--mean", "1,b"], "not a list of numbers"),
        (["--samples", "0"], "samples 0 is outside 1 or more"),
        (["--layout", "CHW"], "unknown layout 'CHW'"),
    ],
)
def test_malformed_options(model: Path, args: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse(model, *args)


def test_errors_reach_the_command(model: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        parse(model, "--data", str(tmp_path / "nothing.npz"))
    with pytest.raises(UsageError, match="no input 'pixel'; did you mean 'pixels'"):
        parse(model, "--data", "synthetic", "--input-shape", "pixel:1x3x8x8")


def test_photographs_come_out_as_the_model_wants_them(shared: Path, tmp_path: Path) -> None:
    """A folder of CIFAR-10's JPEGs, with no option at all, is what its own loader gives."""
    pytest.importorskip("PIL.Image", reason="pillow is not installed; it comes with the extra 'data'")
    folder = shared / "data" / "cifar10"
    archive = np.load(folder / "test.npz")
    content, offsets, classes = archive["bytes"], archive["offsets"], archive["labels"][:20]
    for index, label in enumerate(classes):
        path = tmp_path / "images" / str(label) / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content[offsets[index] : offsets[index + 1]].tobytes())
    expected, _ = runpy.run_path(str(folder / "load.py"))["tensors"]("test", 20)
    data, _ = parse(folder / "resnet20.onnx", "--data", str(tmp_path / "images"))
    assert data is not None
    names = sorted({str(label) for label in classes})
    assert sizes(data) == [20]
    for image, label in zip(gathered(data, "input"), labels_of(data), strict=True):
        distance = np.abs(expected - image).max((1, 2, 3))
        assert distance.min() < 1e-5
        assert names[label] == str(classes[distance.argmin()])
