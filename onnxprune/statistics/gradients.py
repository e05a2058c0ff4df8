"""Statistics of gradients: what a loss does when units, or weights, are taken away a little.

Two kinds. What a unit contributes: imagine all its terms in the sums over it multiplied by a gate of 1. The derivative
of a sample's loss by the gate is the sum, over all that is read, of activation times gradient; where both factors of a
product are activations (queries and keys), over one of them. What a weight
contributes: weight times gradient and the like, summed up over all axes but those that units lie along, for scores that
are sums over weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import Tensor

from onnxprune.analysis.groups import Analysis, Group
from onnxprune.analysis.owned import Axes, owned_axes, sum_owned
from onnxprune.data.base import Batch, Data, length_of
from onnxprune.dims import Atom
from onnxprune.errors import UsageError
from onnxprune.runtime.torch.losses import make_loss
from onnxprune.runtime.torch.losses.probe import CurvatureProbe
from onnxprune.runtime.torch.module import TorchModel
from onnxprune.statistics.accumulators import unit_maps
from onnxprune.statistics.derivatives import (
    PROBED_TOGETHER,
    ModelOnData,
    derivatives,
    finite,
    small_batches,
    synaptic_flow,
)
from onnxprune.statistics.sites import SitePlace, SiteRead, find_sites

Sums = npt.NDArray[np.float64]
AxisSums = dict[tuple[str, Axes], Sums]
T = TypeVar("T")


@dataclass
class Contributions:
    """Numbers per sample and unit of a group, added up over samples.

    Attributes:
        samples: how many there were.
        sizes, squares: sums over samples of their absolute values and of their squares; float64, shape [units].
    """

    units: int
    samples: int = 0
    sizes: Sums = field(init=False)
    squares: Sums = field(init=False)

    def __post_init__(self) -> None:
        self.sizes, self.squares = np.zeros(self.units), np.zeros(self.units)

    def add(self, each: Sums) -> None:
        """Those of further samples: [samples, units]."""
        self.samples += len(each)
        self.sizes += np.abs(each).sum(axis=0)
        self.squares += np.square(each).sum(axis=0)


@dataclass(frozen=True)
class _Copy:
    """The part of a place that one reader sees, as a value of its own."""

    name: str
    place: SitePlace
    read: SiteRead


@dataclass(frozen=True)
class _Step:
    """One batch with what the model made of it."""

    batch: Batch
    values: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    scalar: Tensor


class Gradients(ModelOnData):
    """Gradients of an analysed model on calibration data. Each statistic is computed once, for all groups together.

    Whatever is an expectation under drawn labels (Fisher, Gauss-Newton) takes a probe in place of them; see
    runtime.torch.losses.probe. Arguments and errors: see `ModelOnData`.
    """

    def __init__(self, analysis: Analysis, data: Data | None, **settings: Any) -> None:
        self._found: dict[str, Any] = {}
        super().__init__(analysis, data, **settings)
        self._axes = owned_axes(analysis.groups)

    def _in_torch(self) -> TorchModel:
        with _reads_apart(self.analysis) as reads:
            self._copies: list[_Copy] = reads
            return super()._in_torch()

    def contributions(self, group: Group) -> Contributions | None:
        """Derivatives of samples' losses by the gates of a group's units; None where nothing reads them."""
        return self._once("contributions", lambda: self._added(self._derivatives(probe=False))).get(group.atom)

    def probes(self, group: Group) -> Contributions | None:
        """As `contributions`, of a probe: the mean square is the diagonal of the Fisher information, in expectation."""
        return self._once("probes", lambda: self._added(self._derivatives(probe=True))).get(group.atom)

    def changes(self, group: Group) -> Contributions | None:
        """By how much the losses of samples change, to second order, when a unit goes; else as `contributions`.

        That is h / 2 - d with the derivative d of a sample's loss by the gate, and the second derivative h of the
        Gauss-Newton matrix, which `probes` estimates: the mean over all samples, for that of one is noise.
        """
        return self._once("changes", self._changes).get(group.atom)

    def sensitivity(self) -> AxisSums:
        """Size of weight * gradient, the mean over batches, summed as `analysis.owned.sum_owned` asks."""
        return self._once("sensitivity", lambda: self._summed(self._sensitivities()))

    def squared_sensitivity(self) -> AxisSums:
        """Squared weight * gradient, the mean over batches, summed likewise."""
        return self._once("squared sensitivity", lambda: self._summed(self._squared_sensitivities()))

    def sums(self, group: Group) -> Contributions | None:
        """The sum of weight * gradient over all that belongs to each unit, batch by batch in place of samples."""
        return self._once("sums", self._sums).get(group.atom)

    def gradient_flow(self) -> AxisSums:
        """Product of weight and Hessian * gradient, the mean over batches, summed likewise."""
        return self._once("gradient flow", lambda: self._summed(self._gradient_flows()))

    def curvature(self) -> AxisSums:
        """Squared weight times its entry on the diagonal of the Gauss-Newton matrix, summed likewise."""
        return self._once("curvature", lambda: self._summed(self._curvatures()))

    def synaptic_flow(self) -> AxisSums:
        """Product of weight and gradient of all outputs, with absolute weights and inputs of 1, summed likewise."""
        return self._once("synaptic flow", self._synaptic_flow)

    def _once(self, kind: str, compute: Callable[[], T]) -> T:
        if kind not in self._found:
            self._found[kind] = compute()
        return self._found[kind]  # type: ignore[no-any-return]

    def _steps(
        self, *, probe: bool, reduction: str, keep: Collection[str] = (), most: int | None = None
    ) -> Iterator[_Step]:
        """The model and its loss, or a probe, on every batch, or on at most `most` samples of it at once.

        Raises UsageError where there is no data.
        """
        if self._data is None:
            raise UsageError("the criterion needs gradients: give --data (an .npz, a folder, or synthetic)")
        loss = make_loss(self._loss, self._model.outputs, self._seed, reduction)
        curvature = CurvatureProbe(self._model.outputs, self._seed)
        data = self._data if most is None else small_batches(self._data, self.analysis, most)
        for count, batch in enumerate(data.batches(), 1):
            self._progress(f"taking gradients, batch {count}")
            values = self._model(batch.feed, keep)
            outputs = {name: finite(values[name]) for name in self._model.outputs}
            labels = None if batch.labels is None else torch.as_tensor(batch.labels)
            yield _Step(batch, values, outputs, curvature(outputs) if probe else loss(outputs, labels))

    # -- units

    def _added(self, each: Iterator[dict[Atom, Sums]]) -> dict[Atom, Contributions]:
        found: dict[Atom, Contributions] = {}
        for batch in each:
            for atom, numbers in batch.items():
                found.setdefault(atom, Contributions(atom.size)).add(numbers)
        return found

    def _changes(self) -> dict[Atom, Contributions]:
        probes = self._once("probes", lambda: self._added(self._derivatives(probe=True)))
        halves = {atom: found.squares / (2 * found.samples) for atom, found in probes.items()}
        slopes = self._derivatives(probe=False)
        return self._added({atom: halves[atom] - slope for atom, slope in batch.items()} for batch in slopes)

    def _derivatives(self, *, probe: bool) -> Iterator[dict[Atom, Sums]]:
        """For each batch the derivatives of its samples' losses by the gates of every group: [samples, units]."""
        groups = {group.atom: self._gated(group) for group in self.analysis.groups}
        names = [copy.name for copy in self._copies]
        for step in self._steps(probe=probe, reduction="sum", keep=names):
            reads = [step.values[name] for name in names]
            slopes = derivatives([step.scalar], reads)
            effects = {
                name: finite(read * slope).detach().cpu().numpy()
                for name, read, slope in zip(names, reads, slopes, strict=True)
            }
            samples = length_of(step.batch)
            yield {
                atom: np.sum([_by_sample(effects[copy.name], copy.place, atom, samples) for copy in copies], axis=0)
                for atom, copies in groups.items()
                if copies
            }

    def _gated(self, group: Group) -> list[_Copy]:
        """The reads that gates of the units hang at: of both factors of a product one."""
        found: dict[ir.Node, _Copy] = {}
        for copy in self._copies:
            if copy.read.sums(group.atom):
                found.setdefault(copy.read.node, copy)
        return list(found.values())

    # -- weights: each yields the samples of a batch, and scores to add for every weight

    def _weights(self) -> dict[str, Tensor]:
        return {name: weight for name, weight in self._model.weights.items() if name in self._axes}

    def _sensitivities(self) -> Iterator[tuple[int, dict[str, Tensor]]]:
        for samples, products in self._products():
            yield samples, {name: product.abs() * samples for name, product in products.items()}

    def _products(self) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Weight * gradient of a batch's mean loss, with the samples of the batch."""
        weights = self._weights()
        for step in self._steps(probe=False, reduction="mean"):
            slopes = derivatives([step.scalar], list(weights.values()))
            yield length_of(step.batch), _each(weights, slopes, torch.mul)

    def _squared_sensitivities(self) -> Iterator[tuple[int, dict[str, Tensor]]]:
        for samples, products in self._products():
            yield samples, {name: product.square() * samples for name, product in products.items()}

    def _sums(self) -> dict[Atom, Contributions]:
        found: dict[Atom, Contributions] = {}
        for _, products in self._products():
            sums = self._summed([(1, products)])
            for group in self.analysis.groups:
                places = [place for place in group.occurrences if place.tensor in products]
                if places:
                    each = sum_owned(group, lambda tensor, axes, sums=sums: sums[tensor, axes], places)  # type: ignore[misc]
                    found.setdefault(group.atom, Contributions(group.units)).add(each[None])
        return found

    def _gradient_flows(self) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """The gradient is that of all weights: what has no prunable axis shares in the flow that is to be kept."""
        weights = self._weights()
        every = [weight for weight in self._model.weights.values() if weight.numel() > 1]
        for step in self._steps(probe=False, reduction="mean"):
            slopes = derivatives([step.scalar], every, again=True)
            square = torch.stack([(slope * slope.detach()).sum() for slope in slopes]).sum()
            changes = derivatives([square], list(weights.values()))
            samples = length_of(step.batch)
            yield samples, _each(weights, changes, torch.mul, samples)

    def _curvatures(self) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Squared gradients of a probe are the diagonal of the Gauss-Newton matrix in expectation.

        The signs of a probe differ from sample to sample, so the square of a batch's gradient is in expectation the
        sum of the squares of its samples': one backward pass per batch, not one per sample. Batches are small, for the
        noise falls with the root of their number, at nearly the same cost.
        """
        weights = self._weights()
        for step in self._steps(probe=True, reduction="sum", most=PROBED_TOGETHER):
            slopes = derivatives([step.scalar], list(weights.values()))
            yield length_of(step.batch), _each(weights, slopes, lambda weight, slope: (weight * slope).square())

    def _synaptic_flow(self) -> AxisSums:
        self._progress("following the synaptic flow")
        model, flows = synaptic_flow(self.analysis, self._device)
        weights = {name: model.weights[name] for name in self._weights()}
        return self._summed([(1, _each(weights, derivatives(flows, list(weights.values())), torch.mul))])

    def _summed(self, scores: Any) -> AxisSums:
        """The mean over samples of scores per weight, summed over all axes but those of `owned_axes`."""
        total: AxisSums = {}
        count = 0
        for samples, found in scores:
            count += samples
            for tensor, scored in found.items():
                for axes in self._axes[tensor]:
                    others = [other for other in range(scored.ndim) if other not in axes]
                    part = scored.double()
                    sums = (part.sum(others) if others else part).cpu().numpy()
                    total[tensor, axes] = total.get((tensor, axes), 0.0) + sums
        return {key: sums / count for key, sums in total.items()}


def _each(
    weights: Mapping[str, Tensor],
    slopes: Sequence[Tensor],
    score: Callable[[Tensor, Tensor], Tensor],
    times: int = 1,
) -> dict[str, Tensor]:
    pairs = zip(weights.items(), slopes, strict=True)
    with torch.no_grad():
        return {name: finite(score(weight, slope)) * times for (name, weight), slope in pairs}


def _by_sample(effects: npt.NDArray[Any], place: SitePlace, atom: Atom, samples: int) -> Sums:
    """The sum over everything that belongs to a unit in a sample: [samples, units].

    What does not enumerate the samples is spread over them evenly.
    """
    maps = unit_maps(effects, place, atom, samples)
    sums: Sums = maps.reshape(*maps.shape[:2], -1).sum(axis=2, dtype=np.float64)
    return sums if len(sums) == samples else np.repeat(sums / samples, samples, axis=0)


@contextlib.contextmanager
def _reads_apart(analysis: Analysis) -> Iterator[list[_Copy]]:
    """Give everyone that reads a place a value of its own, for the length of a block.

    It comes from a Transpose that changes nothing, which is a tensor of its own in torch; an Identity is not.
    """
    graph = analysis.model.graph
    copies: list[_Copy] = []
    undo: list[Callable[[], object]] = []
    for place, reads in find_sites(analysis).items():
        if not analysis.shapes.dtypes[place.value].is_floating_point():
            continue
        for read in reads:
            node, slot = read.node, read.slot
            value = node.inputs[slot]
            order = ir.AttrInt64s("perm", range(len(analysis.shapes.shapes[place.value])))
            copy = ir.Node("", "Transpose", [value], [order])
            copy.outputs[0].name = name = f"{place.value}:read by {node.outputs[0].name}:{slot}"
            graph.insert_before(node, copy)
            node.replace_input_with(slot, copy.outputs[0])
            copies.append(_Copy(name, place, read))
            undo.append(lambda node=node, slot=slot, value=value: node.replace_input_with(slot, value))  # type: ignore[misc]
            undo.append(lambda copy=copy: graph.remove(copy, safe=True))  # type: ignore[misc]
    try:
        yield copies
    finally:
        for step in undo:
            step()
