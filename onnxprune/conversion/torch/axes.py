"""Which axes of the inputs stay open, and example inputs at other sizes of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from onnxprune.errors import UsageError
from onnxprune.support.messages import did_you_mean

BATCH = "batch"
Tensors = Mapping[str, Tensor]
Axes = dict[str, dict[int, str]]

# Inputs at other sizes are as large as the example's, give or take this: what it is multiplied with, or gets more.
_STEPS: tuple[tuple[int, int], ...] = ((1, 1), (2, 0), (1, 8), (1, 32), (3, 0))


def given_axes(texts: Sequence[str], inputs: Tensors) -> Axes:
    """The axes of texts like `images:0=batch,2=h,3=w`. Raises UsageError for what is not of this form, or not there."""
    axes: Axes = {}
    for text in texts:
        name, separator, entries = text.rpartition(":")
        if not separator:
            raise UsageError(f"dynamic '{text}' is not of the form images:0=batch,2=h,3=w")
        if name not in inputs:
            raise UsageError(f"the network has no input '{name}'{did_you_mean(name, inputs)}")
        for entry in entries.split(","):
            axis, _, called = (part.strip() for part in entry.partition("="))
            if not axis.isdecimal() or not called.isidentifier():
                raise UsageError(f"dynamic '{text}' is not of the form images:0=batch,2=h,3=w")
            if int(axis) >= inputs[name].ndim:
                raise UsageError(f"input '{name}' has {inputs[name].ndim} axes, so there is no axis {axis}")
            axes.setdefault(name, {})[int(axis)] = called
    sizes: dict[str, int] = {}
    for name, place, said in each_axis(axes):
        size = inputs[name].shape[place]
        if sizes.setdefault(said, size) != size:
            raise UsageError(f"axis '{said}' has the sizes {sizes[said]} and {size} in the example inputs")
    return axes


def batch_of(inputs: Tensors) -> Axes:
    """The first axis of every input that has as many entries there as the first input."""
    ranked = {name: tensor for name, tensor in inputs.items() if tensor.ndim}
    if not ranked:
        return {}
    size = next(iter(ranked.values())).shape[0]
    return {name: {0: BATCH} for name, tensor in ranked.items() if tensor.shape[0] == size}


def each_axis(axes: Axes) -> Iterator[tuple[str, int, str]]:
    """Input, axis and its name."""
    for name, found in axes.items():
        for axis, called in found.items():
            yield name, axis, called


def at_least_two(inputs: Tensors, axes: Axes) -> dict[str, Tensor]:
    """The same with two entries on dynamic axes that have one: exporters take a size of 1 for one that never varies."""
    return resized(inputs, axes, {name: 2 for name, size in sizes_in(inputs, axes).items() if size == 1})


def sizes_in(inputs: Tensors, axes: Axes) -> dict[str, int]:
    """The size of every named axis."""
    return {called: inputs[name].shape[axis] for name, axis, called in each_axis(axes)}


def resized(inputs: Tensors, axes: Axes, sizes: Mapping[str, int]) -> dict[str, Tensor]:
    """Inputs at other sizes: entries are repeated, so indices stay in their range and masks stay masks."""
    found = dict(inputs)
    for name, axis, called in each_axis(axes):
        if called in sizes:
            order = torch.arange(sizes[called], device=found[name].device) % found[name].shape[axis]
            found[name] = found[name].index_select(axis, order)
    return found


def other_sizes(inputs: Tensors, axes: Axes) -> Iterator[dict[str, int]]:
    """Sizes of the named axes, none as in the example, likeliest first; networks may take multiples of some only."""
    sizes = sizes_in(inputs, axes)
    for times, more in _STEPS:
        yield {called: size + 1 if called == BATCH else size * times + more for called, size in sizes.items()}


def varied(inputs: Tensors, seed: int) -> dict[str, Tensor]:
    """The same with other numbers, where these are not whole: what was taken from an example shows."""
    generator = torch.Generator().manual_seed(seed)

    def noise(tensor: Tensor) -> Tensor:
        drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float32)
        return tensor + (0.1 * drawn).to(tensor)

    return {name: noise(tensor) if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}
