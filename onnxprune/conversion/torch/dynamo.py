"""torch.onnx over torch.export: the graph is captured with symbolic sizes. Parameters keep their names."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch
from torch.export import ExportedProgram
from torch.utils._pytree import tree_map_with_path

from onnxprune.conversion.torch.axes import each_axis
from onnxprune.conversion.torch.network import TorchNetwork, evaluating, path_text, quiet
from onnxprune.errors import MissingExtraError
from onnxprune.model.file import as_model

NAME = "dynamo"


def export_with_dynamo(network: TorchNetwork, outputs: list[str]) -> ir.Model:
    """The model with its inputs and outputs named. Raises MissingExtraError, or whatever torch raises."""
    try:
        from onnxscript import optimizer
    except ImportError:
        raise MissingExtraError("onnxscript", "export") from None
    options, arguments = network.options, network.arguments
    program = isinstance(network.module, ExportedProgram)
    with quiet(), evaluating(network.module):
        made = torch.onnx.export(
            network.module,
            () if program else arguments.args,
            kwargs={} if program else arguments.kwargs,
            dynamo=True,
            input_names=list(network.inputs),
            output_names=outputs,
            dynamic_shapes=None if program else _shapes(network),
            opset_version=options.opset,
            optimize=not options.keep_batchnorm,
            verbose=False,
        )
        assert made is not None
        if options.keep_batchnorm:  # torch's own optimization makes them part of convolutions
            optimizer.fold_constants(made.model)
            optimizer.remove_unused_nodes(made.model)
    model = as_model(made.model)
    if program:
        _name_axes(model, network)
    return model


def _name_axes(model: ir.Model, network: TorchNetwork) -> None:
    """Exported programs call open axes s34; here they are called after the inputs' axes, wherever they occur."""
    shapes = {value.name: value.shape for value in model.graph.inputs if value.shape is not None}
    names = {str(shapes[name][axis]): said for name, axis, said in each_axis(network.axes)}
    made = (value for node in model.graph for value in node.outputs)
    for value in (*model.graph.inputs, *made):
        if value.shape is not None:
            sizes = [size if isinstance(size, int) else names.get(str(size), size) for size in value.shape]
            value.shape = ir.Shape(sizes)


def _shapes(network: TorchNetwork) -> Any:
    """Per argument of forward the names of its open axes, in the form that torch.export takes."""
    return tree_map_with_path(
        lambda path, leaf: network.axes.get(path_text(path)) if isinstance(leaf, torch.Tensor) else None,
        dict(network.arguments.arguments),
    )
