"""Statistics of gradients: what a loss does when units, or weights, are taken away a little.

Two kinds. What a unit contributes: imagine all that it gives to its readers multiplied by a gate of 1. The derivative
of a sample's loss by the gate is the sum, over all that is read, of activation times gradient. What a weight
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
from onnxprune.analysis.owned import Axes, owned_axes
from onnxprune.data.base import Batch, Data, length_of
from onnxprune.dims import Atom, atoms
from onnxprune.errors import ModelError, UsageError
from onnxprune.model.signature import ports_of, synthetic_feed
from onnxprune.ops.traits import normalizes
from onnxprune.runtime.torch.losses import make_loss
from onnxprune.runtime.torch.module import TorchModel
from onnxprune.statistics.accumulators import unit_maps
from onnxprune.statistics.sites import SitePlace, find_sites
from onnxprune.support.messages import one_line

Sums = npt.NDArray[np.float64]
AxisSums = dict[tuple[str, Axes], Sums]
T = TypeVar("T")


@dataclass
class Contributions:
    """Derivatives of the losses of samples by the gates of a group's units.

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

    def add(self, derivatives: Sums) -> None:
        """Those of further samples: [samples, units]."""
        self.samples += len(derivatives)
        self.sizes += np.abs(derivatives).sum(axis=0)
        self.squares += np.square(derivatives).sum(axis=0)


@dataclass(frozen=True)
class _Step:
    """One batch with what the model made of it."""

    batch: Batch
    values: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    loss: Tensor


class Gradients:
    """Gradients of an analysed model on calibration data. Each statistic is computed once, for all groups together.

    Labels are used where the data has them. Where it has none, and for what is an expectation under the model's own
    predictions (Fisher, Gauss-Newton), they are drawn; see runtime.torch_loss.

    Args:
        analysis: the model.
        data: what to run it on; None will do for the synaptic flow.
        loss: its name, see `make_loss`.
        seed: of drawn labels and signs.
        device: where torch computes.
        progress: told what is being done.

    Raises ModelError where torch has no implementation of an operator, UsageError for a device that is not there.
    """

    def __init__(
        self,
        analysis: Analysis,
        data: Data | None,
        *,
        loss: str = "auto",
        seed: int = 0,
        device: str = "cpu",
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.analysis = analysis
        self._data = data
        self._loss = loss
        self._seed = seed
        self._device = device
        self._progress = progress
        self._found: dict[str, Any] = {}
        with _reads_apart(analysis) as reads:
            self._reads: dict[SitePlace, list[str]] = reads
            self._model = _moved(TorchModel(analysis.model), device)
        self._axes = owned_axes(analysis.groups)

    def contributions(self, group: Group, *, drawn: bool) -> Contributions | None:
        """What the units of a group contribute to the loss; None where nothing reads them.

        Args:
            group: one of the model's.
            drawn: labels are drawn even if the data has them.
        """
        return self._once(f"contributions {drawn}", lambda: self._contributions(drawn)).get(group.atom)

    def changes(self, group: Group) -> Contributions | None:
        """By how much the losses of samples change, to second order, when a unit goes; else as `contributions`.

        That is h / 2 - d with the derivative d by the gate, and the second derivative h of the Gauss-Newton matrix: the
        squared derivative at a label that is drawn, in expectation.
        """
        return self._once("changes", self._changes).get(group.atom)

    def sensitivity(self) -> AxisSums:
        """Size of weight * gradient, the mean over batches, summed as `analysis.owned.sum_owned` asks."""
        return self._once("sensitivity", lambda: self._summed(self._sensitivities()))

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

    def _steps(self, *, drawn: bool, reduction: str, keep: Collection[str] = (), seed: int = 0) -> Iterator[_Step]:
        """The model and its loss on every batch. Raises UsageError where there is no data."""
        if self._data is None:
            raise UsageError("the criterion needs gradients: give --data (an .npz, a folder, or synthetic)")
        loss = make_loss("auto" if drawn else self._loss, self._model.outputs, self._seed + seed, reduction)
        for count, batch in enumerate(self._data.batches(), 1):
            self._progress(f"taking gradients, batch {count}")
            values = self._model(batch.feed, keep)
            outputs = {name: _finite(values[name]) for name in self._model.outputs}
            labels = None if drawn or batch.labels is None else torch.as_tensor(batch.labels)
            yield _Step(batch, values, outputs, loss(outputs, labels))

    # -- units

    def _contributions(self, drawn: bool) -> dict[Atom, Contributions]:
        found: dict[Atom, Contributions] = {}
        for derivatives in self._derivatives(drawn=drawn):
            for atom, each in derivatives.items():
                found.setdefault(atom, Contributions(atom.size)).add(each)
        return found

    def _changes(self) -> dict[Atom, Contributions]:
        found: dict[Atom, Contributions] = {}
        slopes, others = self._derivatives(drawn=False), self._derivatives(drawn=True, seed=1)
        for slope, other in zip(slopes, others, strict=True):
            for atom in slope:
                found.setdefault(atom, Contributions(atom.size)).add(np.square(other[atom]) / 2 - slope[atom])
        return found

    def _derivatives(self, *, drawn: bool, seed: int = 0) -> Iterator[dict[Atom, Sums]]:
        """For each batch the derivatives of its samples' losses by the gates of every group: [samples, units]."""
        groups = {group.atom: self._places(group) for group in self.analysis.groups}
        names = [name for each in self._reads.values() for name in each]
        for step in self._steps(drawn=drawn, reduction="sum", keep=names, seed=seed):
            reads = {name: step.values[name] for name in names}
            slopes = dict(zip(names, _gradients([step.loss], list(reads.values())), strict=True))
            effects = {
                place: _finite(torch.stack([reads[name] * slopes[name] for name in each]).sum(0)).detach().cpu().numpy()
                for place, each in self._reads.items()
            }
            samples = length_of(step.batch)
            yield {
                atom: np.sum([_by_sample(effects[place], place, atom, samples) for place in places], axis=0)
                for atom, places in groups.items()
                if places
            }

    def _places(self, group: Group) -> list[SitePlace]:
        return [place for place in self._reads if group.atom in set(atoms(place.dim))]

    # -- weights: each yields the samples of a batch, and scores to add for every weight

    def _weights(self) -> dict[str, Tensor]:
        return {name: weight for name, weight in self._model.weights.items() if name in self._axes}

    def _sensitivities(self) -> Iterator[tuple[int, dict[str, Tensor]]]:
        weights = self._weights()
        for step in self._steps(drawn=False, reduction="mean"):
            slopes = _gradients([step.loss], list(weights.values()))
            samples = length_of(step.batch)
            yield samples, _each(weights, slopes, lambda weight, slope: (weight * slope).abs(), samples)

    def _gradient_flows(self) -> Iterator[tuple[int, dict[str, Tensor]]]:
        weights = self._weights()
        for step in self._steps(drawn=False, reduction="mean"):
            slopes = _gradients([step.loss], list(weights.values()), again=True)
            square = torch.stack([(slope * slope.detach()).sum() for slope in slopes]).sum()
            changes = _gradients([square], list(weights.values()))
            samples = length_of(step.batch)
            yield samples, _each(weights, changes, torch.mul, samples)

    def _curvatures(self) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Squared gradients of samples with drawn labels are the diagonal of the Gauss-Newton matrix in expectation.

        The gradients of a batch's samples are added up with random signs before they are squared, which in expectation
        gives the sum of their squares: one backward pass per batch, not one per sample.
        """
        weights = self._weights()
        generator = torch.Generator().manual_seed(self._seed)
        for step in self._steps(drawn=True, reduction="sum"):
            samples = length_of(step.batch)
            outputs = [value for value in step.outputs.values() if value.requires_grad]
            signs = torch.randint(0, 2, (samples,), generator=generator) * 2 - 1
            slopes = [_signed(slope, signs) for slope in _gradients([step.loss], outputs)]
            slopes = _gradients(outputs, list(weights.values()), slopes)
            yield samples, _each(weights, slopes, lambda weight, slope: (weight * slope).square())

    def _synaptic_flow(self) -> AxisSums:
        """Tanaka et al. take the absolute values of everything stored, running statistics included."""
        model = _moved(TorchModel(self.analysis.model, "float64"), self._device)
        with torch.no_grad():
            for stored in (*model.weights.values(), *model.statistics.values()):
                stored.abs_()
        ports = ports_of(self.analysis.model)
        one_sample = {port.batch_symbol: 1 for port in ports if port.batch_symbol is not None}
        feed = synthetic_feed(ports, {**self.analysis.shapes.bindings, **one_sample})
        names = [_before_normalizing(value) for value in self.analysis.model.graph.outputs]
        values = model({name: np.ones_like(array) for name, array in feed.items()}, names)
        flows = [values[name].sum() for name in names if values[name].is_floating_point()]
        self._progress("following the synaptic flow")
        weights = {name: model.weights[name] for name in self._weights()}
        return self._summed([(1, _each(weights, _gradients(flows, list(weights.values())), torch.mul))])

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


def _moved(model: TorchModel, device: str) -> TorchModel:
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise UsageError(f"torch cannot compute on '{device}' here: {one_line(error)}; leave --device out") from error


def _each(
    weights: Mapping[str, Tensor],
    slopes: Sequence[Tensor],
    score: Callable[[Tensor, Tensor], Tensor],
    times: int = 1,
) -> dict[str, Tensor]:
    pairs = zip(weights.items(), slopes, strict=True)
    with torch.no_grad():
        return {name: _finite(score(weight, slope)) * times for (name, weight), slope in pairs}


def _by_sample(effects: npt.NDArray[Any], place: SitePlace, atom: Atom, samples: int) -> Sums:
    """The sum over everything that belongs to a unit in a sample: [samples, units].

    What does not enumerate the samples is spread over them evenly.
    """
    maps = unit_maps(effects, place, atom, samples)
    sums: Sums = maps.reshape(*maps.shape[:2], -1).sum(axis=2, dtype=np.float64)
    return sums if len(sums) == samples else np.repeat(sums / samples, samples, axis=0)


def _gradients(
    of: Sequence[Tensor], inputs: Sequence[Tensor], slopes: Sequence[Tensor] | None = None, *, again: bool = False
) -> list[Tensor]:
    """Of the sum of `of`, each entry times its slope, by each input; zeros where nothing depends on it.

    `again`: the result can be differentiated once more. Raises ModelError where torch cannot.
    """
    followed = [index for index, value in enumerate(inputs) if value.requires_grad]
    moving = [index for index, value in enumerate(of) if value.requires_grad]
    result = [torch.zeros_like(value) for value in inputs]
    if not followed or not moving:
        return result
    try:
        found = torch.autograd.grad(
            [of[index] for index in moving],
            [inputs[index] for index in followed],
            None if slopes is None else [slopes[index] for index in moving],
            create_graph=again,
            materialize_grads=True,
        )
    except (RuntimeError, NotImplementedError) as error:
        raise ModelError(f"torch cannot differentiate the model: {one_line(error)}") from error
    for index, gradient in zip(followed, found, strict=True):
        result[index] = _finite(gradient)
    return result


def _finite(value: Tensor) -> Tensor:
    return torch.nan_to_num(value) if isinstance(value, Tensor) and value.is_floating_point() else value


def _signed(slope: Tensor, signs: Tensor) -> Tensor:
    """Rows of a sample multiplied by its sign; the samples are the outermost part of the first axis."""
    if not slope.ndim or len(slope) % len(signs):
        return slope
    rows = signs.to(slope).repeat_interleave(len(slope) // len(signs))
    return slope * rows.reshape(-1, *[1] * (slope.ndim - 1))


@contextlib.contextmanager
def _reads_apart(analysis: Analysis) -> Iterator[dict[SitePlace, list[str]]]:
    """Give everyone that reads a place a value of its own: by place the names, for the length of a block.

    It comes from a Transpose that changes nothing, which is a tensor of its own in torch; an Identity is not.
    """
    graph = analysis.model.graph
    names: dict[SitePlace, list[str]] = {}
    undo: list[Callable[[], object]] = []
    for place, uses in find_sites(analysis).items():
        if not analysis.shapes.dtypes[place.value].is_floating_point():
            continue
        for node, slot in uses:
            value = node.inputs[slot]
            order = ir.AttrInt64s("perm", range(len(analysis.shapes.shapes[place.value])))
            copy = ir.Node("", "Transpose", [value], [order])
            copy.outputs[0].name = name = f"{place.value}:read by {node.outputs[0].name}:{slot}"
            graph.insert_before(node, copy)
            node.replace_input_with(slot, copy.outputs[0])
            names.setdefault(place, []).append(name)
            undo.append(lambda node=node, slot=slot, value=value: node.replace_input_with(slot, value))  # type: ignore[misc]
            undo.append(lambda copy=copy: graph.remove(copy, safe=True))  # type: ignore[misc]
    try:
        yield names
    finally:
        for step in undo:
            step()


def _before_normalizing(output: ir.Value) -> str:
    """The value to sum for the synaptic flow: the output, or what a softmax, whose sum is always the same, reads."""
    producer = output.producer()
    if producer is not None and normalizes(producer) and producer.inputs[0] is not None:
        return producer.inputs[0].name or ""
    return output.name or ""
