"""A folder of images; sub-folders are classes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from onnxprune.data import pixels
from onnxprune.data.base import Batch, SampleRequest, SourceSample, Start, source
from onnxprune.errors import DataError
from onnxprune.model.signature import Port

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _folders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir())


def _recognizes(request: SampleRequest) -> bool:
    """A folder with an image in it or at most two folders below it."""
    path = request.path
    if not path.is_dir():
        return False
    places = [path, *_folders(path)]
    places += [below for place in places[1:] for below in _folders(place)]
    return any(_is_image(file) for place in places for file in place.iterdir())


def _sample(folder: Path) -> SourceSample:
    from PIL import Image

    for index in range(7):
        (folder / "photos" / str(index % 2)).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(index).integers(0, 255, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / str(index % 2) / f"{index}.png")
    return SourceSample("photos", (Port("pixels", "tensor(float)", ("batch", 3, 8, 8)),))


@source(
    "images",
    "a folder of images, or of a folder of images for each class",
    _recognizes,
    sample=_sample,
    options=("images",),
    parts=True,
)
def open_images(request: SampleRequest) -> Start:
    """Images in an order shuffled by the seed. Folders directly below, sorted by name, are the classes 0, 1, ...

    Raises DataError where images lie beside folders of images (are there classes or not?), and where the classes are
    one level further down, as in a folder with `train` and `test` in it.
    """
    recipe = pixels.recipe(request.port_of("a folder of images"), request.images)
    files = _labelled(request.path)
    np.random.default_rng(request.seed).shuffle(files)
    first, step = request.part
    return lambda: _read(files[first::step], recipe, request)


def _labelled(path: Path) -> list[tuple[str, int | None]]:
    """The paths of all images with their classes."""
    flat = sorted(str(file) for file in path.iterdir() if _is_image(file))
    classes = [(folder, _below(folder)) for folder in _folders(path)]
    classes = [(folder, images) for folder, images in classes if images]
    if flat and classes:
        raise DataError(f"{path} holds images and folders of images; give one that has only classes, or only images")
    if flat:
        return [(file, None) for file in flat]
    nested = [folder for folder, images in classes if not any(_is_image(file) for file in folder.iterdir())]
    if nested and len(nested) == len(classes) and all(len(_folders(folder)) > 1 for folder in nested):
        raise DataError(f"{path} has the classes one level further down; give one of its folders, like {nested[0]}")
    return [(file, label) for label, (_, images) in enumerate(classes) for file in images]


def _below(folder: Path) -> list[str]:
    found = [Path(root) / name for root, _, names in os.walk(folder) for name in names]
    return sorted(str(file) for file in found if _is_image(file))


def _read(files: list[tuple[str, int | None]], recipe: pixels.PixelRecipe, request: SampleRequest) -> Iterator[Batch]:
    """One image after the other."""
    name = request.ports[0].name
    for file, label in files:
        array = recipe.array(Path(file), file)[None]
        yield Batch({name: array}, None if label is None else np.array([label]))
