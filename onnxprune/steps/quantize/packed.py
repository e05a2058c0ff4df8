"""MatMulNBits: weights of a product packed into 8 or 4 bits, in blocks with a scale each."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.analysis.layers import Layer, bias_of, matrix_of
from onnxprune.ops.dequantize import MICROSOFT
from onnxprune.steps.quantize.grids import TINY
from onnxprune.steps.quantize.insert import Editor

# So many weights of an output share a scale.
BLOCK = 32


def pack(matrix: npt.NDArray[Any], bits: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Weights [features, outputs] as MatMulNBits stores them, rounded to nearest.

    Returns bytes [outputs, blocks, bytes of a block], lowest bits first, of integers that represent
    scale * (integer - 2 ** (bits - 1)), and scales [outputs * blocks]. A last block that is not full has zeros.
    """
    features, outputs = matrix.shape
    blocks, half = -(-features // BLOCK), 1 << (bits - 1)
    padded = np.zeros((outputs, blocks * BLOCK))
    padded[:, :features] = matrix.T
    padded = padded.reshape(outputs, blocks, BLOCK)
    scales = np.maximum(np.abs(padded).max(axis=2) / (half - 1), TINY).astype(np.float32)
    integers = (np.clip(np.rint(padded / scales[:, :, None]), 1 - half, half - 1) + half).astype(np.uint8)
    if bits == 4:
        integers = integers[:, :, ::2] | (integers[:, :, 1::2] << 4)
    return integers, scales.reshape(-1)


def store_packed(editor: Editor, layer: Layer, bits: int) -> None:
    """Put MatMulNBits in place of a MatMul or Gemm, in place."""
    node, (matrix,) = layer.node, matrix_of(layer)
    integers, scales = pack(matrix, bits)
    bias = bias_of(layer, matrix.shape[1]) if layer.form.bias is not None else None
    inputs: list[ir.Value | None] = [
        node.inputs[0],
        editor.constant(f"{layer.weight}/packed", integers),
        editor.constant(f"{layer.weight}/scale", scales),
    ]
    if bias is not None and bias.any():
        inputs += [None, None, editor.constant(f"{layer.weight}/bias", bias.astype(np.float32))]
    attributes = {"K": matrix.shape[0], "N": matrix.shape[1], "bits": bits, "block_size": BLOCK, "accuracy_level": 1}
    made = editor.node("MatMulNBits", inputs, node.name or layer.name, domain=MICROSOFT, attributes=attributes)
    editor.swap(node, made)
