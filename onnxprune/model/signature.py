"""Inputs of a model by name, type and shape, and made-up values for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.errors import ModelError, UsageError
from onnxprune.model.batch_axes import batch_axes, is_name
from onnxprune.support.messages import did_you_mean

Feed = dict[str, npt.NDArray[Any]]

_TYPES = {
    "float": np.float32,
    "float16": np.float16,
    "double": np.float64,
    "int64": np.int64,
    "int32": np.int32,
    "int16": np.int16,
    "int8": np.int8,
    "uint64": np.uint64,
    "uint32": np.uint32,
    "uint16": np.uint16,
    "uint8": np.uint8,
    "bool": np.bool_,
    "string": np.str_,
}

# An input of more entries than this takes gigabytes: a slip in the file, most likely.
_MAX_ENTRIES = 1 << 28


@dataclass(frozen=True)
class IndexRange:
    """Whole numbers that an input may hold: from `first` up to, not including, `end`.

    `end` may be the name of a dynamic axis: the numbers are positions along it.
    """

    first: int
    end: int | str

    def bounds(self, sizes: Mapping[str, int]) -> tuple[int, int]:
        """Both ends, the second as `numpy.random.Generator.integers` takes it; an axis of unknown size counts as 1."""
        end = self.end if isinstance(self.end, int) else self.first + sizes.get(self.end, 1)
        return self.first, max(end, self.first + 1)


# What inputs may hold, by their names: a range, or one of some numbers or texts.
Values = Mapping[str, "IndexRange | Sequence[Any]"]


@dataclass(frozen=True)
class Port:
    """One graph input or output as ONNX Runtime reports it: symbolic axes are names or None.

    A tensor of unknown rank has the shape (), as a scalar has; ONNX Runtime does not tell them apart.

    Attributes:
        name: its name.
        type: as ONNX Runtime writes it: `tensor(float)`.
        shape: sizes, names of dynamic axes, None for those without a name.
        batch_axis: the axis that enumerates the samples of a batch; None where all of them share the value. See
            `batch_axes`; what has no axes is shared in any case.
    """

    name: str
    type: str
    shape: tuple[int | str | None, ...]
    batch_axis: int | None = 0

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy type of its entries. Raises ModelError where there is none: a sequence, a map, bfloat16."""
        dtype = _TYPES.get(self.type.removeprefix("tensor(").removesuffix(")"))
        if dtype is None:
            raise ModelError(f"input '{self.name}' has type {self.type}, for which no array can be made")
        return np.dtype(dtype)

    def symbol(self, axis: int) -> str:
        """The name under which a size for a symbolic axis is looked up: its own, else `input[axis]`."""
        size = self.shape[axis]
        return str(size) if is_name(size) else f"{self.name}[{axis}]"

    @property
    def batch_size(self) -> int | str | None:
        """The size of the batch axis, in the words of the shape; None where there is none."""
        return None if self.batch_axis is None or not self.shape else self.shape[self.batch_axis]

    @property
    def batch_symbol(self) -> str | None:
        """The name under which a size for the batch axis is looked up; None where there is none, or it is static."""
        if self.batch_axis is None or not self.shape or isinstance(self.batch_size, int):
            return None
        return self.symbol(self.batch_axis)

    def bound(self, sizes: Mapping[str, int]) -> Port:
        """The same with the symbolic axes that `sizes` knows made static."""
        shape = (
            size if isinstance(size, int) else sizes.get(self.symbol(axis), size)
            for axis, size in enumerate(self.shape)
        )
        return replace(self, shape=tuple(shape))

    def __str__(self) -> str:
        """`float[batch, 3, 224, 224]`, for messages."""
        sizes = ", ".join("?" if size in (None, "") else str(size) for size in self.shape)
        return f"{self.type.removeprefix('tensor(').removesuffix(')')}[{sizes}]"


# In the `meta` of a model: it was found to take one sample at a time, whatever it declares; the axes that were named
# for some of its inputs, see `name_axes`.
TAKES_ONE, NAMED_AXES = "takes one", "batch axes"


def ports_of(model: ir.Model) -> list[Port]:
    """The inputs to feed: the graph inputs that are not initializers, in order; batches of one where it `TAKES_ONE`."""
    ports = declared_ports(model)
    if not model.meta.get(TAKES_ONE):
        return ports
    ones = {port.batch_symbol: 1 for port in ports if port.batch_symbol is not None}
    return [port.bound(ones) for port in ports]


def declared_ports(model: ir.Model) -> list[Port]:
    """The inputs to feed, as the file says; batch axes that were named are no matter of inference."""
    named = model.meta.get(NAMED_AXES, {})
    ports = ports_in(model.graph.inputs)
    inferred, _ = with_batch_axes((port for port in ports if port.name not in named), ports_in(model.graph.outputs))
    axes = {**{port.name: port.batch_axis for port in inferred}, **named}
    return [replace(port, batch_axis=axes[port.name]) for port in ports]


def name_axes(model: ir.Model, texts: Iterable[str]) -> None:
    """Let a model know the batch axes of inputs, from texts like `cache=1`; `table=none`: all samples share the input.

    Raises UsageError for a malformed text, an unknown input, and an axis that it does not have.
    """
    known, found = {port.name: port for port in declared_ports(model)}, dict[str, int | None]()
    for text in texts:
        name, equals, axis = (part.strip() for part in text.rpartition("="))
        if not equals or not (axis.isdecimal() or axis == "none"):
            raise UsageError(f"--batch-axis '{text}' is not an input and its axis, like cache=1 or table=none")
        if name not in known:
            raise UsageError(f"--batch-axis '{text}': the model has no input '{name}'{did_you_mean(name, known)}")
        if axis != "none" and int(axis) >= len(known[name].shape):
            raise UsageError(f"--batch-axis '{text}': '{name}' is {known[name]}, and its first axis is 0")
        found[name] = None if axis == "none" else int(axis)
    model.meta[NAMED_AXES] = found


def ports_in(values: Iterable[ir.Value]) -> list[Port]:
    """Inputs or outputs of a graph as ports, those without an initializer, all with the batch first."""
    return [Port(value.name or "", _type_name(value), _shape(value)) for value in values if not value.is_initializer()]


def with_batch_axes(inputs: Iterable[Port], outputs: Iterable[Port]) -> tuple[list[Port], list[Port]]:
    """Inputs and outputs of a model with their batch axes, see `batch_axes`."""
    both = list(inputs), list(outputs)
    axes = batch_axes(*({port.name: port.shape for port in ports} for ports in both))
    found = [
        [replace(port, batch_axis=own[port.name]) for port in ports] for ports, own in zip(both, axes, strict=True)
    ]
    return found[0], found[1]


def _type_name(value: ir.Value) -> str:
    """As ONNX Runtime writes it: `tensor(float)`; other kinds of types by their own name."""
    if isinstance(value.type, ir.TensorType):
        return f"tensor({value.type.dtype.name.lower()})"
    return repr(value.type)


def _shape(value: ir.Value) -> tuple[int | str | None, ...]:
    sizes = () if value.shape is None else value.shape.dims
    return tuple(size if isinstance(size, int) else size.value for size in sizes)


def sizes_of(feed: Mapping[str, npt.NDArray[Any]], ports: Iterable[Port]) -> dict[str, int]:
    """The sizes that dynamic axes have in arrays by input name, by `Port.symbol`."""
    return {
        port.symbol(axis): feed[port.name].shape[axis]
        for port in ports
        if port.name in feed and feed[port.name].ndim == len(port.shape)
        for axis, size in enumerate(port.shape)
        if not isinstance(size, int)
    }


def given_sizes(shapes: Iterable[str], ports: Sequence[Port]) -> dict[str, int]:
    """The sizes of symbolic axes from texts like `images:8x3x224x224`; an entry without a number leaves its axis open.

    Returns sizes by `Port.symbol`. Raises UsageError for a malformed text, an unknown input, a wrong number of axes, a
    static axis given another size, and one axis given two.
    """
    known = {port.name: port for port in ports}
    sizes: dict[str, int] = {}
    for text in shapes:
        name, separator, written = text.rpartition(":")
        if not separator or not written:
            raise UsageError(f"input shape '{text}' is not of the form name:1x3x224x224")
        if name not in known:
            raise UsageError(f"the model has no input '{name}'{did_you_mean(name, known)}")
        port, entries = known[name], written.split("x")
        if len(entries) != len(port.shape):
            raise UsageError(f"input '{name}' is {port}: {len(port.shape)} axes, but '{text}' gives {len(entries)}")
        for axis, entry in enumerate(entries):
            if entry.isdecimal():
                _note_size(sizes, port, axis, int(entry))
    return sizes


def _note_size(sizes: dict[str, int], port: Port, axis: int, size: int) -> None:
    declared = port.shape[axis]
    already = declared if isinstance(declared, int) else sizes.setdefault(port.symbol(axis), size)
    if already != size or size < 1:
        raise UsageError(f"input '{port.name}' is {port}: axis {axis} cannot have size {size}")


def synthetic_feed(
    ports: Sequence[Port], sizes: Mapping[str, int], seed: int = 0, values: Values = MappingProxyType({})
) -> Feed:
    """Inputs made up: normal floats, whole numbers in the range that is known for them, else 0 and 1, all-true masks.

    Args:
        ports: the inputs.
        sizes: the size of each symbolic axis, by its name or `input[axis]`; 1 where it is not given.
        seed: of the generator.
        values: what integer inputs may hold, by their names.

    Raises ModelError for an input that cannot be made: a sequence or a map, or one too large for any memory.
    """
    rng = np.random.default_rng(seed)
    return {port.name: _make(port, sizes, values.get(port.name), rng) for port in ports}


def _make(
    port: Port, sizes: Mapping[str, int], allowed: IndexRange | Sequence[Any] | None, rng: np.random.Generator
) -> npt.NDArray[Any]:
    dtype = port.dtype
    shape = [size if isinstance(size, int) else 1 for size in port.bound(sizes).shape]
    if prod(shape) > _MAX_ENTRIES:
        raise ModelError(f"input '{port.name}' is declared with {prod(shape)} entries: too many for a trial run")
    if dtype.kind == "f":
        return np.asarray(rng.standard_normal(shape)).astype(dtype)
    if dtype.kind == "b":
        return np.ones(shape, dtype=dtype)
    if dtype.kind == "U" or not isinstance(allowed, IndexRange | None):
        choices = ["a"] if isinstance(allowed, IndexRange | None) else list(allowed)
        drawn = np.asarray(choices, object)[rng.integers(0, len(choices), shape)]
        return np.asarray(drawn, object if dtype.kind == "U" else dtype)
    low, high = (0, 2) if allowed is None else allowed.bounds(sizes)
    return np.asarray(rng.integers(low, high, shape)).astype(dtype)
