"""Folders of images: what happens to the pixels, which classes there are, and in which order they come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxprune.data.base import Array
from onnxprune.data.pixels import IMAGENET_MEAN, IMAGENET_STD, ImageOptions
from onnxprune.errors import DataError
from onnxprune.model.signature import Port
from tests.data.harness import IDS, IMAGES, MASK, assert_same_again, gathered, labels_of, load

Image = pytest.importorskip("PIL.Image", reason="pillow is not installed; it comes with the extra 'data'")

RNG = np.random.default_rng(0)
RAW = ImageOptions(scale=1.0)


def port(*shape: Any, type_name: str = "float") -> Port:
    return Port("pixels", f"tensor({type_name})", ("batch", *shape))


def paint(path: Path, *size: int, value: int | None = None) -> Array:
    """A PNG of noise or of one grey, [height, width, 3]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (*size, 3), dtype=np.uint8) if value is None else np.full((*size, 3), value, np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def one(folder: Path, at: Port, **options: Any) -> Array:
    """The only image of a folder, as the model gets it."""
    (array,) = gathered(load(folder, at, images=ImageOptions(**options)), "pixels")
    return array


def test_classes_are_the_sorted_folders(tmp_path: Path) -> None:
    for index, name in enumerate(("ant", "bee", "cow")):
        for number in range(4):
            paint(tmp_path / name / f"{number}.png", 8, 8, value=10 * index + number)
    (tmp_path / "bee" / "notes.txt").write_text("no image")
    (tmp_path / "without images").mkdir()
    data = load(tmp_path, IMAGES, batch=5, images=RAW)
    values, labels = gathered(data, "pixels")[:, 0, 0, 0], labels_of(data)
    assert data.labelled
    assert sorted(values) == [0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23]
    assert (values // 10 == labels).all()
    assert (np.diff(labels) < 0).any(), "the order is mixed"
    assert_same_again(data)


def test_the_seed_gives_the_order(tmp_path: Path) -> None:
    for number in range(12):
        paint(tmp_path / f"{number}.png", 8, 8, value=number)
    orders = [
        gathered(load(tmp_path, IMAGES, seed=seed, samples=8, images=RAW), "pixels")[:, 0, 0, 0].tolist()
        for seed in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2]
    assert not load(tmp_path, IMAGES).labelled


def test_imagenet_is_the_default(tmp_path: Path) -> None:
    pixels = paint(tmp_path / "a.png", 8, 8)
    expected = (pixels / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    assert np.allclose(one(tmp_path, IMAGES), expected.transpose(2, 0, 1), atol=1e-5)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_layout_and_channel_order(tmp_path: Path, layout: str, order: str) -> None:
    pixels = paint(tmp_path / "a.png", 8, 8)
    at = port(3, 8, 8) if layout == "NCHW" else port(8, 8, 3)
    expected = (pixels / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    expected = expected[:, :, ::-1] if order == "BGR" else expected
    expected = expected.transpose(2, 0, 1) if layout == "NCHW" else expected
    assert np.allclose(one(tmp_path, at, channel_order=order), expected, atol=1e-5)
    assert np.allclose(one(tmp_path, at, channel_order=order, layout=layout), expected, atol=1e-5)


def test_given_numbers_are_in_the_models_channel_order(tmp_path: Path) -> None:
    pixels = paint(tmp_path / "a.png", 8, 8)
    mean, std = (104.0, 117.0, 123.0), (1.0, 2.0, 4.0)
    expected = ((pixels[:, :, ::-1] - np.array(mean)) / np.array(std)).transpose(2, 0, 1)
    found = one(tmp_path, IMAGES, channel_order="BGR", scale=1.0, mean=mean, std=std)
    assert np.allclose(found, expected, atol=1e-4)
    assert np.allclose(one(tmp_path, IMAGES, scale=1.0, mean=(128.0,)), pixels.transpose(2, 0, 1) - 128.0)


def test_integer_inputs_get_the_pixels(tmp_path: Path) -> None:
    pixels = paint(tmp_path / "a.png", 8, 8)
    found = one(tmp_path, port(8, 8, 3, type_name="uint8"))
    assert found.dtype == np.uint8
    assert (found == pixels).all()


def test_grey_inputs(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", 8, 8, value=51)
    assert np.allclose(one(tmp_path, port(1, 8, 8)), 0.2)


def test_larger_images_cover_the_input_and_lose_their_sides(tmp_path: Path) -> None:
    wide = np.zeros((16, 40, 3), np.uint8)
    wide[:, 12:28] = 200  # the middle square
    Image.fromarray(wide).save(tmp_path / "a.png")
    found = one(tmp_path, IMAGES, scale=1.0)
    assert found.shape == (3, 8, 8)
    assert (found[:, :, 2:6] == 200).all()
    assert one(tmp_path, IMAGES, scale=1.0, resize=(8, 8))[:, :, 0].max() == 0, "squeezed, its black sides are in it"


def test_resize_and_crop(tmp_path: Path) -> None:
    pixels = paint(tmp_path / "a.png", 12, 20)
    free = port(3, "height", "width")
    assert (one(tmp_path, free, scale=1.0) == pixels.transpose(2, 0, 1)).all()
    assert one(tmp_path, free, resize=6).shape == (3, 6, 10)
    assert one(tmp_path, free, resize=(5, 7)).shape == (3, 5, 7)
    assert one(tmp_path, free, resize=12, crop=(4, 6), scale=1.0).shape == (3, 4, 6)
    assert (one(tmp_path, free, resize=12, crop=(4, 6), scale=1.0) == pixels[4:8, 7:13].transpose(2, 0, 1)).all()
    assert one(tmp_path, free, crop=8).shape == (3, 8, 8)


def test_sizes_of_dynamic_axes_are_sizes_of_images(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", 12, 20)
    (image,) = gathered(load(tmp_path, port(3, "height", "width"), sizes={"height": 6, "width": 4}), "pixels")
    assert image.shape == (3, 6, 4)


@pytest.mark.parametrize(
    ("at", "options", "says"),
    [
        (port(3, 8, 8), {"resize": 6, "crop": 8}, "crop of 8x8 does not fit in an image of 6x10; use --resize"),
        (port(3, 8, 8), {"crop": 4}, r"'pixels' is float\[batch, 3, 8, 8\], but the data is 1x3x4x4"),
        (port(3, 8, 8), {"mean": (1.0, 2.0)}, "--mean has 2 values, but the model's images have 3 channels"),
        (port(3, 8, 8), {"std": (1.0, 0.0, 1.0)}, "--std must be positive"),
        (port(7, 8, 8), {}, "not a batch of images"),
        (port(5), {}, "not a batch of images"),
        (port(8, 8, 8), {"layout": "NCHW"}, "images have 1, 3 or 4 channels, not 8"),
    ],
)
def test_options_that_do_not_fit(tmp_path: Path, at: Port, options: dict[str, Any], says: str) -> None:
    paint(tmp_path / "a.png", 12, 20)
    with pytest.raises(DataError, match=says):
        one(tmp_path, at, **options)


def test_images_of_several_sizes(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", 12, 20)
    paint(tmp_path / "b.png", 12, 16)
    free = port(3, "height", "width")
    with pytest.raises(DataError, match=r"samples for 'pixels' are .*3x12x16.*; bring them to one size"):
        load(tmp_path, free)
    assert len(list(load(tmp_path, free, batch=1).batches())) == 2


def test_two_inputs(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", 8, 8)
    with pytest.raises(DataError, match="can feed one input only, but the model has 'input_ids', 'attention_mask'"):
        load(tmp_path, IDS, MASK)


def test_a_file_that_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"a\.jpg is not an image that Pillow can read") as caught:
        load(tmp_path, IMAGES)
    assert "\n" not in str(caught.value)


def test_folders_that_can_be_read_in_two_ways(tmp_path: Path) -> None:
    for name in ("train/ant/1.png", "train/bee/1.png", "test/ant/1.png", "test/bee/1.png"):
        paint(tmp_path / name, 8, 8)
    with pytest.raises(DataError, match=r"one level further down; give one of its folders, like .*test"):
        load(tmp_path, IMAGES)
    assert load(tmp_path / "train", IMAGES).labelled
    paint(tmp_path / "train" / "1.png", 8, 8)
    with pytest.raises(DataError, match="holds images and folders of images"):
        load(tmp_path / "train", IMAGES)


def test_images_are_read_one_after_the_other(tmp_path: Path) -> None:
    for number in range(9):
        paint(tmp_path / f"{number}.png", 8, 8)
    data = load(tmp_path, IMAGES, batch=3)
    passed = data.batches()
    next(passed)
    for path in tmp_path.glob("*.png"):
        path.unlink()  # what was not needed yet was not read either
    with pytest.raises(DataError, match="not an image"):
        next(passed)
