"""The options that say where samples come from and how they are read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, MutableMapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.errors import UsageError
from onnxprune.support.options import check_options, option, options_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxprune.data.base import Data, Hints

BATCH = 32
_DATA, _IMAGES = "Data", "Images"


@dataclass(frozen=True)
class DataOptions:
    """Where samples come from and how they are read, as a person types it."""

    data: str | None = option(
        None,
        "Samples: .npz, a folder of arrays or images, .parquet, a saved Hugging Face dataset, text, "
        "module:function, or synthetic.",
        metavar="SPEC",
    )
    labels: str | None = option(None, "The array or column of --data with the labels.", metavar="KEY", section=_DATA)
    samples: int | None = option(None, "Use the first N samples only.", low=1, metavar="N", section=_DATA)
    batch: int | None = option(
        None, f"Samples at a time; {BATCH} unless the model fixes it.", low=1, metavar="N", section=_DATA
    )
    tokenizer: Path | None = option(None, "Text: the tokenizer.json.", metavar="FILE", section=_DATA)
    resize: str | None = option(
        None, "Shorter side, or height x width; by default as the input.", metavar="SIZE", section=_IMAGES
    )
    crop: str | None = option(
        None, "Cut this out of the middle; by default as the input.", metavar="SIZE", section=_IMAGES
    )
    scale: float | None = option(
        None, "Multiply pixels of 0..255; 1/255 by default for floats.", metavar="NUMBER", section=_IMAGES
    )
    mean: str | None = option(
        None, "Subtract per channel after --scale; ImageNet's by default.", metavar="NUMBERS", section=_IMAGES
    )
    std: str | None = option(None, "Divide by, per channel; ImageNet's by default.", metavar="NUMBERS", section=_IMAGES)
    layout: str | None = option(
        None, "Axes of the input: NCHW or NHWC.", choices=lambda: ("NCHW", "NHWC"), metavar="AXES", section=_IMAGES
    )
    channel_order: str | None = option(
        None, "Order of the channels: RGB or BGR.", choices=lambda: ("RGB", "BGR"), metavar="ORDER", section=_IMAGES
    )

    def __post_init__(self) -> None:
        for name, between in (("resize", "x"), ("crop", "x"), ("mean", ","), ("std", ",")):
            object.__setattr__(self, name, _text(getattr(self, name), between))
        check_options(self)
        self._images()  # what cannot be read is refused before any work

    @staticmethod
    def from_command(options: MutableMapping[str, Any]) -> DataOptions:
        """Take the options out of the keyword arguments of a command."""
        return DataOptions(**{name: options.pop(name) for name in options_of(DataOptions) if name in options})

    def check_alone(self) -> None:
        """Raises UsageError for options that say something about data where there is none."""
        for name, each in options_of(DataOptions).items():
            if self.data is None and getattr(self, name) != each.default:
                raise UsageError(f"--{each.flag} says how to read --data, which is not there; add it")

    def beside(self, spec: str | None) -> DataOptions | None:
        """Other samples that are read in the same way; all of them, even where `samples` limits these."""
        return None if spec is None else replace(self, data=spec, samples=None)

    @property
    def made_up(self) -> bool:
        """The samples are to be made up, for which it is good to know the model well."""
        return self.data == "synthetic"

    def open(
        self,
        model: Callable[[], ir.Model],
        seed: int,
        sizes: Mapping[str, int] = {},
        hints: Hints | None = None,
        without: Collection[str] = (),
    ) -> Data | None:
        """The samples; None where none are named.

        Args:
            model: opens the model, if there is a need to.
            seed: of everything random.
            sizes: of dynamic axes, by name or `input[axis]`.
            hints: what made-up samples may know of the model; None: what its file says.
            without: inputs that the samples do not have.

        Raises UsageError for options that say something about data where there is none, DataError for data that does
        not fit the model.
        """
        self.check_alone()
        if self.data is None:
            return None
        from onnxprune.data.base import NO_HINTS, load_data
        from onnxprune.data.pixels import ImageOptions
        from onnxprune.data.sources.synthetic import hints_of
        from onnxprune.model.signature import ports_of

        opened = model()
        if hints is None:
            hints = hints_of(opened) if self.made_up else NO_HINTS
        return load_data(
            self.data,
            [port for port in ports_of(opened) if port.name not in without],
            labels=self.labels,
            samples=self.samples,
            batch=self.batch or BATCH,
            seed=seed,
            sizes=sizes,
            images=ImageOptions(**self._images()),
            tokenizer=self.tokenizer,
            hints=hints,
        )

    def _images(self) -> dict[str, Any]:
        given: dict[str, Any] = {
            "resize": None if self.resize is None else _size("resize", self.resize),
            "crop": None if self.crop is None else _size("crop", self.crop),
            "scale": self.scale,
            "mean": None if self.mean is None else _numbers("mean", self.mean),
            "std": None if self.std is None else _numbers("std", self.std),
            "layout": self.layout,
            "channel_order": self.channel_order,
        }
        return {name: value for name, value in given.items() if value is not None}


def _text(value: Any, between: str) -> Any:
    """A number, or several, as they are typed: [224, 288] is 224x288."""
    if isinstance(value, tuple | list):
        return between.join(map(str, value))
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _size(name: str, text: str) -> int | tuple[int, int]:
    """`256` or `224x288`: an int, or height and width."""
    sides = text.split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise UsageError(f"--{name} '{text}' is not a size like 256 or 224x288 (height x width)")
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


def _numbers(name: str, text: str) -> tuple[float, ...]:
    """`0.485,0.456,0.406`."""
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise UsageError(f"--{name} '{text}' is not a list of numbers like 0.485,0.456,0.406") from None


def data_from(
    options: MutableMapping[str, Any], model: ir.Model | None, seed: int, sizes: Mapping[str, int] = {}
) -> Data | None:
    """Take the options out of keyword arguments and open the data; None where none is named."""

    def opened() -> ir.Model:
        assert model is not None
        return model

    return DataOptions.from_command(options).open(opened, seed, sizes)
