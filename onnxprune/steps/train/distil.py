"""The teacher: the original network, and which entries of its values a pruned student still has.

Names of values stay when units are removed, so a student's inner value is to be a selection of the teacher's value of
the same name, and no layer has to be learned in between to compare the two (as FitNets need, Romero et al., 2015).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import Tensor

from onnxprune.analysis.groups import Analysis
from onnxprune.dims import Atom, Mask, keep_mask
from onnxprune.model import graph as graphs
from onnxprune.ops.learned import WEIGHT, learned
from onnxprune.ops.traits import adds
from onnxprune.runtime.torch.module import TorchModel
from onnxprune.steps.train.computing import Computing, full
from onnxprune.steps.train.samples import Portion

# Inner values that are compared where nobody names them.
_MOST_FEATURES = 8
Kept = Callable[[str], Sequence[Mask] | None]


def _everything(_: str) -> Sequence[Mask] | None:
    return None


@dataclass(frozen=True)
class Teacher:
    """A network to learn from.

    Attributes:
        model: it is not changed.
        kept: for a value's name, per axis, which of its entries the student has; None where it has all.
    """

    model: ir.Model
    kept: Kept = _everything


def teacher_of(original: Analysis, keep: Mapping[Atom, Mask]) -> Teacher:
    """The original of a pruned model; `keep` says per atom which units are left: bool, shape [units]."""

    def kept(name: str) -> list[Mask] | None:
        dims = original.dims.get(name)
        return None if dims is None else [keep_mask(dim, keep) for dim in dims]

    return Teacher(original.model, kept)


class Targets:
    """What the teacher says to samples; computed once for each where its inputs do not vary.

    Args:
        teacher: the network.
        features: names of inner values beside the outputs.
        computing: where and how it computes.
        room: bytes that may be kept.
    """

    def __init__(self, teacher: Teacher, features: Sequence[str], computing: Computing, room: int) -> None:
        self._teacher, self._computing, self._room = teacher, computing, room
        self.module = TorchModel(teacher.model)
        computing.place(self.module)
        self.module.requires_grad_(False)
        self.features = [name for name in features if name in self.module.values]
        self._places: dict[tuple[str, int], Tensor | None] = {}
        self._known: dict[tuple[bool, int], dict[str, Tensor]] = {}  # by sample, or by the first of a whole portion

    def __call__(self, portion: Portion, feed: Mapping[str, Tensor], *, varied: bool) -> dict[str, Tensor]:
        """Outputs and inner values by name, the entries that the student has.

        Args:
            portion: the samples.
            feed: their inputs.
            varied: they are not the same in every epoch.
        """
        if varied:
            return self._compute(feed)
        numbers = portion.numbers.tolist()
        found = self._known.get((True, numbers[0])) if portion.whole else self._remembered(numbers)
        if found is None:
            found = self._compute(feed)
            self._remember(numbers, found, whole=portion.whole)
        return found

    def _compute(self, feed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with torch.no_grad(), self._computing.context():
            values = full(self.module(feed, self.features))
        return {name: self._selected(name, value) for name, value in values.items()}

    def _remembered(self, numbers: Sequence[int]) -> dict[str, Tensor] | None:
        if not all((False, number) in self._known for number in numbers):
            return None
        rows = [self._known[False, number] for number in numbers]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def _remember(self, numbers: Sequence[int], found: dict[str, Tensor], *, whole: bool) -> None:
        """By sample where every value has one entry for each, else by portion."""
        size = sum(value.numel() * value.element_size() for value in found.values() if isinstance(value, Tensor))
        if size > self._room:
            return
        self._room -= size
        if whole:
            self._known[True, numbers[0]] = found
        elif all(isinstance(value, Tensor) and value.ndim and len(value) == len(numbers) for value in found.values()):
            for at, number in enumerate(numbers):
                self._known[False, number] = {name: value[at].clone() for name, value in found.items()}

    def _selected(self, name: str, value: Tensor) -> Tensor:
        """The entries of a value that the student has, along each axis that units were removed from."""
        kept = self._teacher.kept(name)
        if kept is None or not isinstance(value, Tensor) or len(kept) != value.ndim:
            return value
        for axis, mask in enumerate(kept):
            if mask.all() or len(mask) != value.shape[axis]:
                continue
            places = self._places.get((name, axis))
            if places is None:
                places = self._places[name, axis] = _positions(mask).to(value.device)
            value = value.index_select(axis, places)
        return value

    def unit_axis(self, name: str, value: Tensor) -> int:
        """The axis of a value that its units lie along."""
        kept = self._teacher.kept(name)
        cut = [axis for axis, mask in enumerate(kept or ()) if not mask.all()]
        if len(cut) == 1:
            return cut[0]
        return 1 if value.ndim > 3 else value.ndim - 1


def _positions(mask: npt.NDArray[np.bool_]) -> Tensor:
    return torch.from_numpy(np.flatnonzero(mask))


def feature_values(model: ir.Model, most: int = _MOST_FEATURES) -> list[str]:
    """Inner values that say much of a network: the sums on its residual streams, else what its layers read.

    Args:
        model: the network.
        most: of more, so many are taken that lie evenly over the depth, the last among them.
    """
    reached = _reached(model.graph.inputs)
    nodes = [node for node, _ in graphs.operator_names(model) if any(value in reached for value in node.outputs)]
    layers = [node for node in nodes if not learned(node).entrywise and WEIGHT in learned(node).roles.values()]
    made = {value for node in nodes for value in node.outputs}
    sums = [node.outputs[0] for node in nodes if adds(node) and all(value in made for value in node.inputs)]
    behind = _reached(value for layer in layers for value in layer.outputs)
    streams = [value for value in sums if value in behind and not value.is_graph_output()]
    read = [node.inputs[0] for node in layers if node.inputs and node.inputs[0] in made and node.inputs[0] in behind]
    names = list(dict.fromkeys(value.name or "" for value in (streams or read) if value is not None))
    if len(names) <= most:
        return names
    return [names[round((index + 1) * len(names) / most) - 1] for index in range(most)]


def _reached(values: Iterable[ir.Value]) -> set[ir.Value]:
    """These values and all that are computed from them."""
    found: set[ir.Value] = set()
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if value not in found:
            found.add(value)
            waiting.extend(output for node, _ in value.uses() for output in node.outputs)
    return found
