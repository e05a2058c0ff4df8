"""LSTM layers, for which ONNX Runtime has an operator with integer weights that measures its inputs as it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.analysis.layers import read
from onnxprune.model.graph import operator_names
from onnxprune.ops.dequantize import MICROSOFT
from onnxprune.ops.integer_kernels import is_recurrent, recurrent_obstacle
from onnxprune.steps.quantize.fit import LayerNoise
from onnxprune.steps.quantize.grids import TINY, largest_integer
from onnxprune.steps.quantize.insert import Editor
from onnxprune.steps.quantize.store import replace_input


def quantize_recurrent(editor: Editor, bits: int, left_out: Mapping[str, str]) -> list[LayerNoise]:
    """Put DynamicQuantizeLSTM in place of each LSTM, in place; what became of every recurrent layer."""
    found = []
    for node, name in list(operator_names(editor.model)):
        if is_recurrent(node):
            why = left_out.get(name, "") or recurrent_obstacle(node)
            found.append(LayerNoise(name, node.op_type, 0 if why else bits, why=why))
            if not why:
                _replace_lstm(editor, node, bits)
    return found


def recurrent_names(model: ir.Model) -> list[str]:
    """Names of the recurrent layers."""
    return [name for node, name in operator_names(model) if is_recurrent(node)]


def _replace_lstm(editor: Editor, node: ir.Node, bits: int) -> None:
    extra: list[ir.Value] = []
    for slot, word in ((1, "W"), (2, "R")):
        integers, scales = _per_column(read(node.inputs[slot]).transpose(0, 2, 1), bits)
        name = node.inputs[slot].name or word  # type: ignore[union-attr]
        replace_input(editor.model, node, slot, editor.constant(f"{name}/integers", integers))
        extra += [
            editor.constant(f"{name}/scale", scales),
            editor.constant(f"{name}/zero", np.zeros(scales.shape, np.int8)),
        ]
    inputs = [*node.inputs, *[None] * (8 - len(node.inputs)), *extra]
    attributes = [each for key, each in node.attributes.items() if key != "layout"]
    made = ir.Node(MICROSOFT, "DynamicQuantizeLSTM", inputs, attributes, num_outputs=len(node.outputs), name=node.name)
    editor.model.opset_imports.setdefault(MICROSOFT, 1)
    editor.swap(node, made)


def _per_column(array: npt.NDArray[Any], bits: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Integers [directions, rows, columns], and the scale of each column [directions, columns]."""
    most = largest_integer(bits)
    scales = np.maximum(np.abs(array).max(axis=1) / most, TINY).astype(np.float32)
    return np.clip(np.rint(array / scales[:, None]), -most, most).astype(np.int8), scales
