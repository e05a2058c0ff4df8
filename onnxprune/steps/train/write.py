"""Weights back into the graph that they came from: names, shapes, types and sharing stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import Tensor

from onnxprune.errors import ModelError


@dataclass(frozen=True)
class Written:
    """The weights that were written.

    Attributes:
        changed: the initializers that are other than before.
        clipped: those with entries beyond what their type holds, which got its largest value.
    """

    changed: tuple[str, ...] = ()
    clipped: tuple[str, ...] = ()


def write_weights(
    model: ir.Model, weights: Mapping[str, Tensor], zeros: Mapping[str, npt.NDArray[np.bool_]] | None = None
) -> Written:
    """Put weights into the initializers of the same names, in place.

    An initializer whose entries do not change keeps its tensor, so a model that learned nothing is saved as it was.

    Args:
        model: the model.
        weights: float tensors by name, of the shapes of the initializers; they are rounded to the type in the file.
        zeros: per weight, which entries may be other than zero: bool, of its shape.

    Raises ModelError where the model has no such initializer, or in another shape; it is unchanged then.
    """
    for name, tensor in weights.items():
        value = model.graph.initializers.get(name)
        if value is None or value.const_value is None:
            raise ModelError(f"the model has no weight '{name}' to write to; use the one that was trained, or a copy")
        found = tuple(value.const_value.shape.numpy())
        if found != tuple(tensor.shape):
            raise ModelError(f"weight '{name}' has shape {tuple(tensor.shape)} here and {found} in the model")
    changed, clipped = [], []
    for name, tensor in weights.items():
        value = model.graph.initializers[name]
        assert value.const_value is not None
        array, cut = _rounded(tensor, value.const_value.dtype)
        if zeros and name in zeros:
            array = np.where(zeros[name], array, np.zeros((), array.dtype))
        if array.tobytes() == value.const_value.tobytes():
            continue
        value.const_value = ir.Tensor(array, dtype=value.const_value.dtype, name=value.name)
        changed.append(name)
        clipped += [name] * cut
    return Written(tuple(changed), tuple(clipped))


def _rounded(tensor: Tensor, dtype: ir.DataType) -> tuple[npt.NDArray[np.generic], bool]:
    """In a type of the file, and whether something was beyond its largest value."""
    exact = tensor.detach().cpu().to(torch.float64).numpy()
    if dtype == ir.DataType.DOUBLE:
        return np.array(exact), False
    if dtype.is_integer():
        return np.ascontiguousarray(np.clip(exact, dtype.min, dtype.max).astype(dtype.numpy())), False
    largest = float(dtype.max) if hasattr(dtype, "max") and dtype.max is not None else float("inf")
    beyond = bool((np.abs(exact) > largest).any())
    limited = np.clip(exact, -largest, largest) if beyond else exact
    return np.ascontiguousarray(limited.astype(dtype.numpy())), beyond
