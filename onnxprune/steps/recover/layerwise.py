"""Layer after layer through a pruned model beside its original: gather what both compute, and fit the layer.

What a layer sees is computed with the layers before it already fitted, so each one also makes up for what the others
could not. A weight that several layers share is fitted once, in front of the first of them, for all together; those
that the first one feeds are taken to see what they see in the original, as if all in front of them were fitted. The
biases follow one by one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxprune.analysis.layers import Array, Layer, matrix_of
from onnxprune.passes.base import PassResult
from onnxprune.passes.write_back import set_bias, set_matrix
from onnxprune.runtime.providers import CPU_ONLY
from onnxprune.runtime.stepper import Stepper
from onnxprune.steps.recover.evidence import Evidence, Gathering, LayerFit, Values, gather, joint_evidence
from onnxprune.steps.recover.floors import floor_of
from onnxprune.steps.recover.least_squares import Matrix, Products
from onnxprune.steps.recover.pairing import INTEGERS, Pairing
from onnxprune.steps.recover.recurrence import Recurrence
from onnxprune.support.progress import Counted

Progress = Callable[[str], None]
# What maxima of branches may take in memory.
_MOST_BYTES = 1 << 29


@dataclass(frozen=True)
class LayerError:
    """How far a layer's output is from its target, relative to the target's variance, before and after."""

    layer: str
    before: float
    after: float


def walk(
    pairing: Pairing,
    feeds: Iterable[dict[str, Array]],
    fit: LayerFit,
    *,
    rounds: int = 0,
    streams: bool = True,
    only: Container[str] | None = None,
    seed: int = 0,
    providers: Sequence[str] = CPU_ONLY,
    progress: Progress = lambda _: None,
) -> list[LayerError]:
    """Fit every layer of `pairing.pruned`, in place.

    Args:
        pairing: the two models.
        feeds: the calibration batches; at least two, or the single one is cut in two.
        fit: given the evidence of a layer, its new matrix and bias, or None to leave it.
        rounds: how often layers in front of a Relu or a maximum are fitted again, with what does not matter set free.
        streams: the target of a layer whose output is added to a stream makes up for what the stream lacks; else it is
            what the layer itself gave.
        only: the layers that are fitted, by the value that their node makes in the original; None: all.
        seed: of the places that are drawn.
        providers: execution providers of ONNX Runtime.
        progress: is called with which layer is being worked on.

    Raises ModelError where a model cannot be run.
    """
    batches = _at_least_two(feeds)
    original, pruned = pairing.original, pairing.pruned
    ahead = Stepper(original.model, original.shapes.dtypes, batches, providers)
    behind = Stepper(pruned.model, pruned.shapes.dtypes, batches, providers)
    samples = sum(_samples(batch) for batch in batches)
    pairs = [pair for pair in pairing.pairs() if only is None or pair[1].node.outputs[0].name in only]
    maxima = _maxima(pairing, pairs, ahead) if rounds else {}
    shared: dict[str, Matrix] = {}
    errors = []
    for number, (layer, counterpart) in enumerate(pairs, 1):
        progress(Counted(f"recovering layer {number} of {len(pairs)}: {layer.name}", number - 1, len(pairs)))
        if layer.readers > 1 and layer.weight not in shared:
            readers = [pair for pair in pairs if pair[0].weight == layer.weight]
            one = Products(), Products()
            works = [Gathering(pairing, *each, samples, np.random.default_rng([seed, number]), one) for each in readers]
            shared[layer.weight] = works[0].matrix
            _fit_together(works, fit, ahead, behind)
        work = Gathering(pairing, layer, counterpart, samples, np.random.default_rng([seed, number]))
        work.maxima = maxima.get(work.floor.maximum, ()) if work.floor else ()
        if not streams or behind.would_run(work.skips) & {later.node for later, _ in pairs[number:]}:
            work.residual = None  # the other branch comes later: it is the one that makes up for this
        recurrence = Recurrence.of(pairing, layer, counterpart)
        ahead.advance([*work.theirs, *(recurrence.theirs if recurrence else [])])
        behind.advance(work.ours)
        own = layer.weight not in shared
        first, fitted = _fitted(work, fit if own else _shift, rounds if own else 0, ahead, behind)
        if first is None or fitted is None:
            continue
        matrix, bias = _stored(pairing, first, *fitted)
        if work.repeats and own and not _holds_over_steps(work, first, (matrix, bias), ahead, behind):
            _stored(pairing, first, first.matrix.copy(), first.bias)
            continue
        start = shared.get(layer.weight, first.matrix)
        before, after = first.everything.error(start, first.bias), first.everything.error(matrix, bias)
        scale = max(float(first.everything.target_variance().sum()), 1e-30)
        errors.append(LayerError(layer.name, before / scale, after / scale))
        if recurrence:
            found = recurrence.fit(ahead.batches(*recurrence.theirs), fit, [seed, number])
            errors += [LayerError(f"{layer.name}.recurrent", *found)] if found else []
    return errors


def _maxima(pairing: Pairing, pairs: Sequence[tuple[Layer, Layer]], ahead: Stepper) -> dict[str, list[Array]]:
    """The original's maxima that branches meet in, batch by batch, as far as they fit into memory."""
    floors = [floor_of(counterpart, pairing.original) for _, counterpart in pairs if counterpart.form.hidden is None]
    names = list(dict.fromkeys(floor.maximum for floor in floors if floor is not None and floor.maximum))
    found: dict[str, list[Array]] = {name: [] for name in names}
    size = 0
    for values in ahead.peek(*names) if names else ():
        size += sum(value.nbytes for value in values)
        if size > _MOST_BYTES:
            return {}
        for name, value in zip(names, values, strict=True):
            found[name].append(value)
    return found


def _stored(pairing: Pairing, first: Evidence, matrix: Matrix, bias: Matrix) -> tuple[Matrix, Matrix]:
    """Give a layer a matrix and a bias; what it has of them then, rounded where it is stored as integers."""
    pruned, layer = pairing.pruned, first.layer
    if matrix is not first.matrix:
        set_matrix(pruned.model, layer, matrix, pruned)
        if layer.path.quantized:  # the bias makes up for what rounding shifted
            rounded = matrix_of(layer)
            bias = bias + layer.has_bias * np.einsum("gf,gfo->go", first.everything.x, matrix - rounded)
            matrix = rounded
    if layer.has_bias:
        set_bias(pruned.model, layer, bias, pruned)
    return matrix, bias


def _holds_over_steps(
    work: Gathering, first: Evidence, fitted: tuple[Matrix, Matrix], ahead: Stepper, behind: Stepper
) -> bool:
    """Is a layer nearer to its targets, too, on what it reads once the steps before it give something else?"""
    gather([work], _both(ahead.batches, work.theirs, behind.batches, work.ours))
    again = work.evidence()
    if again is None:
        return False
    return again.everything.error(*fitted) <= first.everything.error(first.matrix, first.bias)


def _fitted(
    work: Gathering, fit: LayerFit, rounds: int, ahead: Stepper, behind: Stepper
) -> tuple[Evidence | None, tuple[Matrix, Matrix] | None]:
    """The evidence on a layer, and its new matrix and bias."""

    def both() -> Iterator[tuple[Values, Values]]:
        return _both(ahead.batches, work.theirs, behind.batches, work.ours)

    gather([work], both())
    first = work.evidence()
    fitted = fit(first) if first else None
    for _ in range(rounds if fitted and work.is_free_below else 0):
        gather([work], both(), fitted)
        evidence = work.evidence()
        fitted = fit(evidence) if evidence else fitted
    return first, fitted


def _fit_together(works: Sequence[Gathering], fit: LayerFit, ahead: Stepper, behind: Stepper) -> None:
    """One matrix for all layers that share it."""
    first = works[0].layer.node
    for work in works:
        work.residual = None  # what streams lack by now says nothing of what they will lack once this is fitted
        work.in_advance = first in behind.would_run([work.x]) and work.pairing.fits(work.layer.x)
    theirs = [name for work in works for name in work.theirs]
    ours = [name for work in works for name in work.ours]
    gather(works, _both(ahead.peek, theirs, behind.peek, ours))
    evidence = joint_evidence(works)
    fitted = fit(evidence) if evidence else None
    if fitted is not None and evidence is not None and fitted[0] is not evidence.matrix:
        pruned = works[0].pairing.pruned
        set_matrix(pruned.model, works[0].layer, fitted[0], pruned)


Batches = Callable[..., Iterator[tuple[Array, ...]]]


def _both(
    ahead: Batches, theirs: Sequence[str], behind: Batches, ours: Sequence[str]
) -> Iterator[tuple[Values, Values]]:
    """Values of both models by name, batch by batch."""
    for one, other in zip(ahead(*theirs), behind(*ours), strict=True):
        yield dict(zip(theirs, one, strict=True)), dict(zip(ours, other, strict=True))


def _shift(evidence: Evidence) -> tuple[Matrix, Matrix] | None:
    """The same matrix, with the bias that makes the means agree."""
    bias = evidence.everything.best_bias(evidence.matrix)
    return (evidence.matrix, bias) if np.isfinite(bias).all() else None


def _at_least_two(feeds: Iterable[dict[str, Array]]) -> list[dict[str, Array]]:
    batches = list(feeds)
    if len(batches) > 1:
        return batches
    size = _samples(batches[0])
    middle = size // 2
    if middle == 0 or any(array.ndim and len(array) != size for array in batches[0].values()):
        return batches * 2
    parts = (slice(middle), slice(middle, None))
    return [{name: array[part] if array.ndim else array for name, array in batches[0].items()} for part in parts]


def _samples(batch: dict[str, Array]) -> int:
    """How many samples a batch has; an input of rank 0 is the same for all of them."""
    return max((len(array) for array in batch.values() if array.ndim), default=1)


@dataclass(frozen=True)
class LayerwiseRecovery(ABC):
    """A pass that fits a pruned model layer after layer, on what the layers in front of each now give.

    Layers in front of a Relu are fitted `rounds` more times with negative targets set free. `only` names the layers
    that are fitted, by the value that their node makes in the original, where it is not all. `errors` tells how far
    each layer is off, before and after, once it has run.
    """

    pairing: Pairing
    feeds: Iterable[dict[str, Array]]
    seed: int = 0
    providers: Sequence[str] = CPU_ONLY
    progress: Progress = lambda _: None
    errors: list[LayerError] = field(default_factory=list)
    rounds: int = 0
    only: Container[str] | None = None
    streams: ClassVar[bool] = True

    @abstractmethod
    def fit(self) -> LayerFit:
        """What is done to each layer."""

    def __call__(self, model: ir.Model) -> PassResult:
        """Apply in place. Raises ModelError where a model cannot be run."""
        if model is not self.pairing.pruned.model:
            raise ValueError("the model is not the pruned one of the pairing")
        left = self.pairing.left()
        self.errors[:] = walk(
            self.pairing,
            self.feeds,
            self.fit(),
            rounds=self.rounds,
            streams=self.streams,
            only=self.only,
            seed=self.seed,
            providers=self.providers,
            progress=self.progress,
        )
        notes = [f"layers that recovery left as they are: {', '.join(map(str, left))}"] if left else []
        if any(each.why == INTEGERS for each in left):
            notes.append("more is kept the other way round: prune the model in floats first, and quantize then")
        return PassResult(model, bool(self.errors), notes)
