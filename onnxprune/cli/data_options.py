"""The options of every command that takes data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxprune.cli.base import Command, shared
from onnxprune.data.options import BATCH

if TYPE_CHECKING:
    pass


def _size(text: str) -> int | tuple[int, int]:
    """`256` or `224x288`: an int, or height and width."""
    sides = text.split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise click.BadParameter(f"'{text}' is not a size like 256 or 224x288 (height x width)")
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


def _numbers(text: str) -> tuple[float, ...]:
    """`0.485,0.456,0.406`."""
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise click.BadParameter(f"'{text}' is not a list of numbers like 0.485,0.456,0.406") from None


_AT_A_TIME = click.option(
    "--batch", type=click.IntRange(1), help=f"Samples at a time; {BATCH} unless the model fixes it."
)
_OPTIONS = (
    click.option(
        "--data",
        metavar="SPEC",
        help="Samples: .npz, a folder of arrays or images, .parquet, a saved Hugging Face dataset, text, "
        "module:function, or synthetic.",
    ),
    click.option("--labels", metavar="KEY", help="The array or column of --data with the labels."),
    click.option("--samples", type=click.IntRange(1), help="Use the first N samples only."),
    _AT_A_TIME,
    click.option(
        "--input-shape",
        "input_shape",
        multiple=True,
        metavar="NAME:SHAPE",
        help="Sizes of dynamic axes, like images:8x3x224x224; ? leaves one open.",
    ),
    click.option(
        "--resize", type=_size, metavar="SIZE", help="Images: shorter side, or height x width; by default as the input."
    ),
    click.option(
        "--crop", type=_size, metavar="SIZE", help="Images: cut this out of the middle; by default as the input."
    ),
    click.option("--scale", type=float, help="Images: multiply pixels of 0..255; 1/255 by default for floats."),
    click.option(
        "--mean",
        type=_numbers,
        metavar="NUMBERS",
        help="Images: subtract per channel after --scale; ImageNet's by default.",
    ),
    click.option(
        "--std", type=_numbers, metavar="NUMBERS", help="Images: divide by, per channel; ImageNet's by default."
    ),
    click.option("--layout", type=click.Choice(["NCHW", "NHWC"]), help="Images: axes of the input."),
    click.option("--channel-order", type=click.Choice(["RGB", "BGR"]), help="Images: order of the channels; RGB."),
    click.option("--tokenizer", type=click.Path(path_type=Path), help="Text: the tokenizer.json."),
)


PROVIDERS = click.option(
    "--providers", default="cpu", metavar="NAMES", help="What runs the model on --data, by preference: cuda,cpu."
)
LOSS = click.option(
    "--loss",
    default="auto",
    show_default=True,
    help="What gradients are of: cross-entropy, mse, sampled, reconstruction, or module:function.",
)
DEVICE = click.option("--device", default="cpu", show_default=True, help="Where torch computes gradients, like cuda.")


def data_options(command: Command) -> Command:
    """Decorator: add --data and what belongs to it; the command hands its keyword arguments to `data_from`."""
    decorate: Callable[[Command], Command] = shared(*_OPTIONS)
    return decorate(command)


def data_options_but_batch(command: Command) -> Command:
    """The same for a command whose --batch says something else."""
    decorate: Callable[[Command], Command] = shared(*(option for option in _OPTIONS if option is not _AT_A_TIME))
    return decorate(command)


def providers_from(names: str) -> list[str]:
    """The execution providers that `--providers` names; what a person should know of them goes to standard error."""
    from onnxprune.runtime.providers import choose

    providers, notes = choose(names.split(","))
    for note in notes:
        click.echo(f"note: {note}", err=True)
    return providers
