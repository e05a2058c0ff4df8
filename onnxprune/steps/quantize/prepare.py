"""What has to be so before a model is quantized: normalizations in weights, and an opset with operators on integers."""

from __future__ import annotations

import onnx.version_converter
import onnx_ir as ir

from onnxprune.analysis.copy import copy_model
from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.layers import layers, read
from onnxprune.errors import ModelError
from onnxprune.model.file import as_model, to_proto
from onnxprune.ops.integer_kernels import OLDEST_OPSET
from onnxprune.ops.traits import multiplies_matrices
from onnxprune.passes.equalize import Equalize
from onnxprune.passes.fold_batchnorm import FoldBatchNorm
from onnxprune.steps.quantize.insert import Editor
from onnxprune.support.messages import one_line

# What an older model is raised to: the first with a scale per channel.
RAISED_TO = 13


def prepared(model: ir.Model, *, equalize: bool = False) -> ir.Model:
    """A copy that is ready to be quantized; with `equalize`, each channel has the same range in both of its layers.

    Raises ModelError for a model of an opset so old that ONNX Runtime has no operators on integers in it, where
    onnx cannot convert it.
    """
    model = copy_model(model)
    if is_too_old(model):
        try:
            raised = as_model(onnx.version_converter.convert_version(to_proto(model), RAISED_TO))
        except Exception as error:
            raise ModelError(
                f"opset {model.opset_imports.get('', 0)} has no operators on integers, and onnx cannot convert it "
                f"to opset {RAISED_TO}: {one_line(error)}"
            ) from error
        raised.meta.update(model.meta)
        model = raised
    FoldBatchNorm()(model)
    if equalize:
        Equalize()(model)
    return model


def can_be_equalized(model: ir.Model) -> bool:
    """Would equalization change anything?"""
    return Equalize()(prepared(model)).modified


def is_too_old(model: ir.Model) -> bool:
    """Has its opset no operators on integers?"""
    return model.opset_imports.get("", OLDEST_OPSET) < OLDEST_OPSET


def join_biases(analysis: Analysis) -> bool:
    """Make a Gemm of each product of two matrices with a bias behind it, in place; were there any?

    ONNX Runtime does so, too, but before it looks for operators on integers, and then finds none.
    """
    found = [layer for layer in layers(analysis) if layer.add and len(analysis.shapes.shapes[layer.x]) == 2]
    found = [layer for layer in found if layer.readers == 1 and layer.norm is None and multiplies_matrices(layer.node)]
    found = [layer for layer in found if layer.path.is_exact]  # no integers and pairs between product and bias
    for layer in found:
        assert layer.add is not None
        add, slot = layer.add
        editor, old = Editor(analysis.model), add.outputs[0]
        bias = editor.constant(f"{layer.weight}/bias", read(add.inputs[slot]).reshape(-1))
        joined = editor.node("Gemm", [*layer.node.inputs, bias], layer.node.name or layer.name, shape=old.shape)
        editor.swap(add, joined)
        analysis.model.graph.remove(layer.node, safe=True)
    return bool(found)
