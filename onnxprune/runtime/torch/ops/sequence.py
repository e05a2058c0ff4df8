"""Sequences are lists of tensors, optionals a value or None."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from onnxprune.runtime.torch.ops.base import TorchNode, torch_op


@torch_op("SequenceConstruct", data_sized=True)
def construct(_: TorchNode, *inputs: Any) -> list[Any]:
    """A sequence of the inputs."""
    return list(inputs)


@torch_op("SequenceEmpty", data_sized=True)
def empty(_: TorchNode) -> list[Any]:
    """A sequence of nothing."""
    return []


@torch_op("SequenceAt", numbers=(1,), data_sized=True)
def at(_: TorchNode, sequence: list[Any], position: int) -> Any:
    """One entry."""
    return sequence[_scalar(position)]


@torch_op("SequenceLength", data_sized=True)
def length(_: TorchNode, sequence: list[Any]) -> Tensor:
    """How many there are."""
    return torch.tensor(len(sequence))


@torch_op("SequenceInsert", numbers=(2,), data_sized=True)
def insert(_: TorchNode, sequence: list[Any], value: Any, position: int | None = None) -> list[Any]:
    """One more, at the end or before a position."""
    place = len(sequence) if position is None else _scalar(position)
    place += len(sequence) if place < 0 else 0
    return [*sequence[:place], value, *sequence[place:]]


@torch_op("SequenceErase", numbers=(1,), data_sized=True)
def erase(_: TorchNode, sequence: list[Any], position: int | None = None) -> list[Any]:
    """One less, the last or the one at a position."""
    place = (-1 if position is None else _scalar(position)) % len(sequence)
    return [*sequence[:place], *sequence[place + 1 :]]


@torch_op("SplitToSequence", numbers=(1,), data_sized=True)
def split_to_sequence(op: TorchNode, x: Tensor, sizes: int | list[int] | None = None) -> list[Tensor]:
    """Pieces along an axis; without sizes of one slice each, the axis dropped unless `keepdims`."""
    axis = op.attr("axis", 0)
    if sizes is not None:
        return list(torch.split(x, sizes, axis))
    pieces = torch.split(x, 1, axis)
    return list(pieces) if op.attr("keepdims", 1) else [piece.squeeze(axis) for piece in pieces]


@torch_op("ConcatFromSequence", data_sized=True)
def concat_from_sequence(op: TorchNode, sequence: list[Tensor]) -> Tensor:
    """One tensor of all, along an axis or a new one."""
    axis = op.attr("axis")
    return torch.stack(sequence, axis) if op.attr("new_axis", 0) else torch.cat(sequence, axis)


@torch_op("Optional", data_sized=True)
def optional(_: TorchNode, value: Any = None) -> Any:
    """The value, or none."""
    return value


@torch_op("OptionalHasElement", data_sized=True)
def has_element(_: TorchNode, value: Any = None) -> Tensor:
    """Is there one?"""
    return torch.tensor(value is not None)


@torch_op("OptionalGetElement", data_sized=True)
def get_element(op: TorchNode, value: Any) -> Any:
    """The value. Raises ModelError where there is none."""
    if value is None:
        raise op.refuse("the optional is empty")
    return value


def _scalar(value: int | list[int]) -> int:
    return value[0] if isinstance(value, list) else value
