"""Layer after layer through a pruned model beside its original: gather what both compute, and mend the layer.

What a layer sees is computed with the layers before it already mended, so each one also makes up for what the others
could not. Behind a residual Add, the target is what the sum should be:

    target of y = y of the original + (skip of the original - skip of the pruned model)

so errors do not pile up along the residual stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.layers import Array, Layer, bias_of, choose_positions, read
from onnxprune.ops.base import key_of
from onnxprune.recovery.edit import set_bias, set_matrix
from onnxprune.recovery.moments import Centered, Matrix, Moments, merged
from onnxprune.recovery.pairing import Pairing
from onnxprune.runtime.stepping import Stepper

# Rows that a layer's moments are taken from, at most; beyond that, places are drawn at random.
MAX_ROWS = 200_000
# Every fifth batch is held out to choose the ridge.
_HELD_OUT = 5

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Evidence:
    """What is known of one layer: its weights as they are, and moments of its rows and targets.

    Attributes:
        matrix: [groups, features, outputs], float64.
        bias: [groups, outputs], float64.
        train, held_out: moments of the rows of different samples.
        everything: both together.
    """

    layer: Layer
    matrix: Matrix
    bias: Matrix
    train: Centered
    held_out: Centered
    everything: Centered


Mend = Callable[[Evidence], tuple[Matrix, Matrix] | None]


@dataclass(frozen=True)
class LayerError:
    """How far a layer's output is from its target, relative to the target's variance, before and after."""

    layer: str
    before: float
    after: float


def walk(
    pairing: Pairing,
    feeds: Iterable[dict[str, Array]],
    mend: Mend,
    *,
    seed: int = 0,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    progress: Progress = lambda _: None,
) -> list[LayerError]:
    """Mend every layer of `pairing.pruned`, in place.

    Args:
        pairing: the two models.
        feeds: the calibration batches; at least two, or the single one is cut in two.
        mend: given the evidence of a layer, its new matrix and bias, or None to leave it.
        seed: of the places that are drawn.
        providers: execution providers of ONNX Runtime.
        progress: told which layer is being worked on.

    Raises ModelError where a model cannot be run.
    """
    batches = _at_least_two(feeds)
    original, pruned = pairing.original, pairing.pruned
    ahead = Stepper(original.model, original.shapes.dtypes, batches, providers)
    behind = Stepper(pruned.model, pruned.shapes.dtypes, batches, providers)
    samples = sum(len(next(iter(batch.values()))) for batch in batches)
    errors = []
    pairs = pairing.pairs()
    for number, (layer, twin) in enumerate(pairs, 1):
        progress(f"recovering layer {number} of {len(pairs)}: {layer.name}")
        skip = residual(layer, pairing)
        ahead.advance([twin.y, *skip])
        behind.advance([layer.x, *skip])
        evidence = _gather(pairing, layer, twin, skip, ahead, behind, samples, np.random.default_rng([seed, number]))
        if evidence is None:
            continue
        mended = mend(evidence)
        if mended is not None:
            matrix, bias = mended
            set_matrix(pruned.model, layer, matrix)
            set_bias(pruned.model, layer, bias)
            scale = max(float(evidence.everything.tt.sum()), 1e-30)
            before = evidence.everything.error(evidence.matrix, evidence.bias) / scale
            errors.append(LayerError(layer.name, before, evidence.everything.error(matrix, bias) / scale))
    return errors


def _at_least_two(feeds: Iterable[dict[str, Array]]) -> list[dict[str, Array]]:
    batches = list(feeds)
    if len(batches) > 1:
        return batches
    size = len(next(iter(batches[0].values())))
    middle = size // 2
    if middle == 0 or any(len(array) != size for array in batches[0].values()):
        return batches * 2
    return [{name: array[part] for name, array in batches[0].items()} for part in (slice(middle), slice(middle, None))]


def residual(layer: Layer, pairing: Pairing) -> list[str]:
    """The other operand of the Add that alone reads the layer's output, if it is an activation of the same shape."""
    node = layer.add[0] if layer.add else layer.node
    output = node.outputs[0]
    uses = list(output.uses())
    if len(uses) != 1 or output.is_graph_output() or key_of(uses[0][0]) != ("", "Add"):
        return []
    add, slot = uses[0]
    other = add.inputs[1 - slot]
    analysis = pairing.pruned
    if other is None or other is output or other.name not in analysis.activations:
        return []
    shapes = analysis.shapes.shapes
    same = shapes.get(other.name or "") == shapes.get(layer.y) and pairing.fits(other.name or "")
    return [other.name or ""] if same and not _depends(other, layer.node) else []


def _depends(value: ir.Value, node: ir.Node) -> bool:
    """Is the value computed from what the node makes?"""
    stack, seen = [value.producer()], set()
    while stack:
        found = stack.pop()
        if found is node:
            return True
        if found is not None and found not in seen:
            seen.add(found)
            stack.extend(each.producer() for each in found.inputs if each is not None)
    return False


def _gather(
    pairing: Pairing,
    layer: Layer,
    twin: Layer,
    skip: list[str],
    ahead: Stepper,
    behind: Stepper,
    samples: int,
    rng: np.random.Generator,
) -> Evidence | None:
    sets = (Moments(), Moments())
    for number, (theirs, ours) in enumerate(
        zip(ahead.batches(twin.y, *skip), behind.batches(layer.x, *skip), strict=True)
    ):
        target = pairing.sliced(theirs[0], twin.y)
        for name, one, other in zip(skip, theirs[1:], ours[1:], strict=True):
            target = target + (pairing.sliced(one, name) - other)
        positions = choose_positions(layer.places(target.shape), max(1, MAX_ROWS // samples), rng)
        sets[number % _HELD_OUT == 1].update(layer.form.rows(ours[0], positions), layer.outputs(target, positions))
    matrix = layer.form.matrix(read(pairing.pruned.model.graph.initializers[layer.weight])).astype(np.float64)
    bias = bias_of(layer, matrix.shape[0] * matrix.shape[2]).reshape(matrix.shape[0], -1)
    train, held_out = sets[0].centered(), sets[1].centered()
    finite = all(np.isfinite(array).all() for array in (train.xx, train.xt, held_out.xx, held_out.xt))
    return Evidence(layer, matrix, bias, train, held_out, merged(*sets)) if finite else None
