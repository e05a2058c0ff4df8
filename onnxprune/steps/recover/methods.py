"""Win back what removal cost, without training: which methods there are, and how one is run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.layers import Array, Layer, held_bias, layers
from onnxprune.data.base import Data
from onnxprune.dims import Atom, Dim, Mask
from onnxprune.errors import UsageError
from onnxprune.runtime.providers import CPU_ONLY
from onnxprune.statistics.made_up import made_up_samples
from onnxprune.steps.recover.base import METHODS
from onnxprune.steps.recover.layerwise import LayerError, Progress
from onnxprune.steps.recover.pairing import Pairing
from onnxprune.steps.recover.step import NONE
from onnxprune.support.memory import bytes_for

# Of the calibration data, this much is used at most: more says little more and takes its time.
MAX_SAMPLES = 1024
# Bytes of an entry of a bias beside integer weights.
_INTEGER_BIAS = 4


@dataclass(frozen=True)
class Recovery:
    """What was done.

    Attributes:
        method: its name, "none" where nothing was done.
        errors: per layer, relative to the variance of its target, before and after; in topological order.
        notes: what a person should know.
    """

    method: str = NONE
    errors: tuple[LayerError, ...] = ()
    notes: tuple[str, ...] = ()


def check_method(name: str) -> None:
    """Raises UsageError for a method that does not exist."""
    if name != NONE and name not in METHODS:
        raise UsageError(METHODS.unknown(name, NONE))


def added_biases(analysis: Analysis, method: str | None) -> list[tuple[Dim, int]]:
    """What a method puts into a model: per new bias the dimension that it lies along, and the bytes of an entry."""
    if method in (None, NONE) or not METHODS[method].on_data:
        return []
    found: list[tuple[Dim, int]] = []
    seen: set[ir.Value] = set()
    for layer in (layer for layer in layers(analysis, hidden=True, bodies=True) if layer.has_bias):
        held, dtype = held_bias(layer), layer.stored.dtype
        if (held is None or held in seen) and dtype is not None:  # layers that shared a bias get one each
            dim, count = _along(layer, analysis)
            size = int(dtype.itemsize) if dtype.is_floating_point() else _INTEGER_BIAS
            found += [(dim, size)] * count
        seen.update(() if held is None else (held,))
    return found


def _along(layer: Layer, analysis: Analysis) -> tuple[Dim, int]:
    """The dimension that a layer's bias lies along, and how often."""
    form = layer.form
    if form.hidden is None:
        return analysis.dims[layer.y][form.out_axis], 1 if form.stack is None else form.groups
    dims = analysis.dims[layer.operand.name or ""]
    return dims[form.hidden], form.bias_parts * (dims[0].size if form.bias_parts > 1 else 1)


def recover_layers(
    original: Analysis,
    pruned: Analysis,
    keep: Mapping[Atom, Mask],
    method: str,
    data: Data | None,
    *,
    seed: int = 0,
    providers: Sequence[str] = CPU_ONLY,
    progress: Progress = lambda _: None,
) -> Recovery:
    """Change the weights of a pruned model so that its layers do what the original's did.

    Args:
        original: the analysis of the original.
        pruned: the analysis of the pruned model, which is changed in place.
        keep: the units that stay, by the original's atoms.
        method: one of METHODS.
        data: calibration data, no labels needed; None: inputs are made up, see `made_up_samples`.
        seed: of everything random.
        providers: execution providers of ONNX Runtime.
        progress: is called with which layer is being worked on.

    Raises UsageError for an unknown method, ModelError where a model cannot be run, DataError for data that does not
    fit.
    """
    check_method(method)
    notes: list[str] = []
    if not METHODS[method].on_data:
        made = METHODS[method].make(Pairing(original, pruned, keep))
        return Recovery(method, (), tuple(made(pruned.model).notes))
    if data is None:
        data = made_up_samples(original, seed=seed, progress=progress)
    feeds, complete = batches_to_fit(batch.feed for batch in data.batches())
    if not complete:
        notes.append(f"recovered on the first {_samples(feeds)} samples of {data.source}")
    made = METHODS[method].make(
        Pairing(original, pruned, keep), feeds, seed=seed, providers=providers, progress=progress
    )
    notes += made(pruned.model).notes
    return Recovery(method, tuple(made.errors), tuple(notes))


def batches_to_fit(feeds: Iterable[dict[str, Array]], most: int = MAX_SAMPLES) -> tuple[list[dict[str, Array]], bool]:
    """As many batches as are used, which have `most` samples or a little more, and whether those are all."""
    found: list[dict[str, Any]] = []
    size = 0
    for feed in feeds:
        if found and (_samples(found) >= most or size > bytes_for("samples")):
            return found, False
        found.append(feed)
        size += sum(array.nbytes for array in feed.values())
    return found, True


def _samples(feeds: Sequence[Mapping[str, Array]]) -> int:
    return sum(max((len(array) for array in feed.values() if array.ndim), default=1) for feed in feeds)
