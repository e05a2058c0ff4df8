"""Which axis sizes kernels like, by what the file will run on and as.

Measured with `benchmarks/alignment.py`, see benchmarks/results/alignment.md. `onnxprune benchmark --alignment` measures
a model on the machine at hand.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from onnxprune.analysis.groups import Group
from onnxprune.model.weights import is_weight
from onnxprune.runtime.providers import CPU
from onnxprune.steps.base import Context
from onnxprune.steps.prune.shipped import quantization

# Blocked convolutions work on 8 or 16 channels at once, and are not used where channels are not a multiple of 4.
_FLOATS = 8
# Integer kernels work on 16 at once, and take longer for fewer channels than for 16; from there on multiples of 4 are
# nearly as good, see benchmarks/integer_kernels.py.
_INTEGERS = 16


def liked_multiples(groups: Iterable[Group], model: ir.Model, context: Context) -> dict[str, int]:
    """Per group id, what its axes should be multiples of, for groups where that pays.

    On a CPU these are channels of convolutions: products of matrices were as fast at any width. Elsewhere they are all
    groups, for tensor cores multiply matrices in blocks.
    """
    number = _INTEGERS if _on_integers(model, context) else _FLOATS
    everything = context.execution[0] != CPU
    return {group.id: number for group in groups if everything or group.kind == "channels"}


def narrowest(groups: Iterable[Group], model: ir.Model, context: Context) -> dict[str, int]:
    """Per group id, the units below which kernels on integers get slower, for channels of convolutions on a CPU.

    A group that is narrower already is to stay as it is.
    """
    if context.execution[0] != CPU or not _on_integers(model, context):
        return {}
    return {group.id: min(_INTEGERS, group.units) for group in groups if group.kind == "channels"}


def _on_integers(model: ir.Model, context: Context) -> bool:
    """Does the file compute on integers of 8 bits, or will it after the steps that follow?"""
    kinds = (ir.DataType.INT8, ir.DataType.UINT8)
    following = quantization(context)
    return (following is not None and following.on_samples) or any(
        is_weight(value) and value.dtype in kinds for value in model.graph.initializers.values()
    )
