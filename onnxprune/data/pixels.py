"""Pictures to arrays: how an image becomes what a model was trained on."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from onnxprune.errors import DataError, MissingExtraError
from onnxprune.model.signature import Port
from onnxprune.support.messages import one_line

if TYPE_CHECKING:
    from PIL import Image

Size = tuple[int, int]
Layout = Literal["NCHW", "NHWC"]

# Of the RGB values in 0..1 of ImageNet's training images, as torchvision's and timm's models want them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ImageOptions:
    """The changes to every image, in this order; None represents the one that the model's input suggests.

    Fields:
        resize: the shorter side (int) or height and width; by default, images of another size than the input's are
            scaled to cover it. Bilinear with antialiasing, as Pillow does.
        crop: height and width cut out of the middle; by default the input's.
        scale: what pixel values of 0..255 are multiplied with; 1/255 by default, 1 for an integer input.
        mean, std: per channel, in the order of the model's channels, after scaling; `(x * scale - mean) / std`. By
            default ImageNet's for a float input of three channels, else 0 and 1.
        layout: where the input's channels are.
        channel_order: RGB or BGR.
    """

    resize: int | Size | None = None
    crop: int | Size | None = None
    scale: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    layout: Layout | None = None
    channel_order: Literal["RGB", "BGR"] = "RGB"


AS_SUGGESTED = ImageOptions()


@dataclass(frozen=True)
class PixelRecipe:
    """ImageOptions with every choice made for one input."""

    resize: int | Size | None
    cover: Size | None
    crop: Size | None
    scale: float
    mean: npt.NDArray[np.float32]
    std: npt.NDArray[np.float32]
    layout: Layout
    channels: int
    reverse: bool
    dtype: np.dtype[Any]

    def array(self, content: bytes | Path, name: str) -> npt.NDArray[Any]:
        """One encoded image as [channels, height, width] or [height, width, channels] of the input's type.

        Raises DataError naming the image when it cannot be decoded or is smaller than the crop.
        """
        pixels = np.asarray(self._sized(_decoded(content, name, self.channels), name), np.float32)
        pixels = pixels.reshape(*pixels.shape[:2], self.channels)
        if self.reverse:
            pixels = pixels[:, :, ::-1]
        values = (pixels * np.float32(self.scale) - self.mean) / self.std
        if self.dtype.kind != "f":
            info = np.iinfo(self.dtype)
            values = np.clip(np.rint(values), info.min, info.max)
        if self.layout == "NCHW":
            values = values.transpose(2, 0, 1)
        return np.ascontiguousarray(values, self.dtype)

    def _sized(self, image: Image.Image, name: str) -> Image.Image:
        from PIL.Image import Resampling

        size = self._target(image.height, image.width)
        if size != (image.height, image.width):
            image = image.resize(size[::-1], Resampling.BILINEAR)
        if self.crop is None:
            return image
        height, width = self.crop
        if height > image.height or width > image.width:
            found = f"{image.height}x{image.width}"
            raise DataError(f"{name}: a crop of {height}x{width} does not fit in an image of {found}; use --resize")
        top, left = (image.height - height) // 2, (image.width - width) // 2
        return image.crop((left, top, left + width, top + height))

    def _target(self, height: int, width: int) -> Size:
        """Height and width to scale an image to."""
        if isinstance(self.resize, tuple):
            return self.resize
        if self.resize is not None:
            ratio = self.resize / min(height, width)
        elif self.cover is not None:
            ratio = max(self.cover[0] / height, self.cover[1] / width)
        else:
            return height, width
        return max(1, round(height * ratio)), max(1, round(width * ratio))


def _decoded(content: bytes | Path, name: str, channels: int) -> Image.Image:
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtraError("pillow", "data") from None
    modes = {1: "L", 3: "RGB", 4: "RGBA"}
    try:
        with Image.open(content if isinstance(content, Path) else io.BytesIO(content)) as image:
            return image.convert(modes[channels])
    except Exception as error:  # Pillow's decoders raise many kinds
        raise DataError(f"{name} is not an image that Pillow can read: {one_line(error)}") from None


def recipe(port: Port, options: ImageOptions) -> PixelRecipe:
    """The choices for one input, from the options and, where they leave it open, from its shape.

    Raises DataError where the input is not one of images, or the options contradict it.
    """
    layout = options.layout or _layout(port)
    axes = port.shape[1:] if len(port.shape) == 4 else (None, None, None)
    channels, *sides = axes if layout == "NCHW" else (axes[2], *axes[:2])
    channels = channels if isinstance(channels, int) else 3
    if channels not in (1, 3, 4):
        raise DataError(f"input '{port.name}' is {port}: images have 1, 3 or 4 channels, not {channels}; see --layout")
    height, width = sides
    expected = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    crop = (options.crop, options.crop) if isinstance(options.crop, int) else options.crop
    normalized = port.dtype.kind == "f"
    imagenet = normalized and channels == 3 and options.scale is None
    mean = options.mean or (IMAGENET_MEAN if imagenet else (0.0,))
    std = options.std or (IMAGENET_STD if imagenet else (1.0,))
    reverse = options.channel_order == "BGR"
    return PixelRecipe(
        resize=options.resize,
        cover=crop or expected,
        crop=crop or (None if isinstance(options.resize, tuple) else expected),
        scale=options.scale if options.scale is not None else 1 / 255 if normalized else 1.0,
        mean=_per_channel("mean", mean[::-1] if reverse and options.mean is None else mean, channels),
        std=_per_channel("std", std[::-1] if reverse and options.std is None else std, channels),
        layout=layout,
        channels=channels,
        reverse=reverse,
        dtype=port.dtype,
    )


def _layout(port: Port) -> Layout:
    """Raises DataError where the shape leaves it open."""
    axis = channel_axis(port)
    if axis is None and (len(port.shape) != 4 or isinstance(port.shape[1], int)):
        raise DataError(
            f"input '{port.name}' is {port}, which is not a batch of images [N, C, H, W] or [N, H, W, C]; give "
            "--layout, or other data such as an .npz file"
        )
    return "NHWC" if axis == 3 else "NCHW"


def channel_axis(port: Port) -> int | None:
    """Where the channels of a batch of images are, 1 or 3: 1, 3 or 4 of them; None for anything else."""
    if len(port.shape) == 4:
        return next((axis for axis in (1, 3) if port.shape[axis] in (1, 3, 4)), None)
    return None


def _per_channel(name: str, values: tuple[float, ...], channels: int) -> npt.NDArray[np.float32]:
    if len(values) not in (1, channels):
        raise DataError(f"--{name} has {len(values)} values, but the model's images have {channels} channels")
    if name == "std" and not all(value > 0 for value in values):
        raise DataError(f"--std must be positive, found {', '.join(map(str, values))}")
    return np.broadcast_to(np.asarray(values, np.float32), (channels,))
