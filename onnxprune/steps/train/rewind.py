"""Weights put back to those of an earlier time, as far as the model still has their units.

Weight rewinding (Frankle et al., "Stabilizing the lottery ticket hypothesis", 2019): what is left of a network goes on
from the weights that it had early in its training. Learning-rate rewinding (Renda, Frankle and Carbin, 2020) keeps the
weights and repeats the end of the schedule: `TrainOptions.rate_rewind`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from onnxprune.analysis.groups import Analysis
from onnxprune.dims import Atom, Mask, keep_mask
from onnxprune.errors import ModelError
from onnxprune.model.file import open_model
from onnxprune.model.weights import reading
from onnxprune.steps.train.checkpoint import part, read_checkpoint
from onnxprune.steps.train.normalization import Inserted, folded
from onnxprune.steps.train.write import Written, write_weights

Array = npt.NDArray[np.generic]
Kept = Callable[[str], Sequence[Mask] | None]


@dataclass(frozen=True)
class Rewound:
    """The weights that were put back.

    Attributes:
        written: what differs from before.
        kept: weights that stay as they are, since the earlier model has none that fit.
    """

    written: Written
    kept: tuple[str, ...] = ()


def weights_of(model: ir.Model) -> dict[str, Array]:
    """The floating-point weights of a model by name."""
    found = {}
    for name, value in model.graph.initializers.items():
        if value.const_value is not None and value.const_value.dtype.is_floating_point():
            with reading(value.const_value) as array:
                found[name] = np.array(array)
    return found


def read_weights(path: Path) -> dict[str, Array]:
    """The weights in an ONNX file, or in a checkpoint of a training. Raises ModelError where it is neither."""
    if path.suffix != ".safetensors":
        return weights_of(open_model(path))
    tensors, facts = read_checkpoint(path)
    inserted = [Inserted(**each) for each in facts.get("inserted", ())]
    return {name: tensor.numpy() for name, tensor in folded(part(tensors, "weights"), inserted).items()}


def left_of(earlier: Analysis, now: Mapping[Atom, Mask], then: Mapping[Atom, Mask] | None = None) -> Kept:
    """Which entries of an earlier model's weights the model still has.

    Args:
        earlier: the analysis of the original.
        now: per atom of it, the units that are left now.
        then: those that were left at the time that weights are taken from; None: all.
    """

    def kept(name: str) -> list[Mask] | None:
        dims = earlier.dims.get(name)
        if dims is None:
            return None
        return [keep_mask(dim, now)[keep_mask(dim, then or {})] for dim in dims]

    return kept


def rewind(
    model: ir.Model, weights: Mapping[str, Array], kept: Kept | None = None, zeros: Mapping[str, Mask] | None = None
) -> Rewound:
    """Give a model the weights of an earlier time, in place. Units that were removed stay removed.

    Args:
        model: it has the names of the earlier one.
        weights: by name, see `weights_of` and `read_weights`.
        kept: which entries of them the model still has, see `left_of`; None: all.
        zeros: per weight, which entries may be other than zero: bool, of its shape.

    Raises ModelError where no weight fits: it is another model.
    """
    own = {
        name: tuple(value.const_value.shape.numpy())
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and value.const_value.dtype.is_floating_point()
    }
    found: dict[str, torch.Tensor] = {}
    for name, shape in own.items():
        array = None if name not in weights else _sliced(weights[name], None if kept is None else kept(name))
        if array is not None and array.shape == shape:
            found[name] = torch.from_numpy(np.ascontiguousarray(array).astype(np.float64))
    if not found:
        raise ModelError("none of the weights to go back to fits this model: they are those of another one")
    return Rewound(write_weights(model, found, zeros), tuple(name for name in own if name not in found))


def _sliced(array: Array, masks: Sequence[Mask] | None) -> Array:
    if masks is None or len(masks) != array.ndim:
        return array
    for axis, mask in enumerate(masks):
        if len(mask) == array.shape[axis]:
            array = np.compress(mask, array, axis=axis)
    return array
