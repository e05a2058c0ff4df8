"""torch.onnx over TorchScript: one run is traced. What depends on values or sizes in Python is fixed as it was."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from onnxprune.conversion.torch.network import TorchNetwork, evaluating, quiet
from onnxprune.errors import ModelError
from onnxprune.model.file import as_model

NAME = "torchscript"


def export_with_torchscript(network: TorchNetwork, outputs: list[str]) -> ir.Model:
    """The model with its inputs and outputs named. Raises ModelError for exported programs, or whatever torch raises.

    Weights are left as they are, so that they keep the names of their parameters: nothing is folded, and the norms are
    exported as they behave in evaluation.
    """
    if isinstance(network.module, ExportedProgram):
        raise ModelError("it takes modules, not exported programs")
    module = network.module
    with tempfile.TemporaryDirectory(prefix="onnxprune-", ignore_cleanup_errors=True) as folder, quiet():
        path = Path(folder) / "model.onnx"  # above 2 GB only files will do
        with _taking_tensors(module, network), evaluating(module), _without_graphs():
            torch.onnx.export(
                module,
                tuple(network.inputs.values()),
                str(path),
                dynamo=False,
                input_names=list(network.inputs),
                output_names=outputs,
                dynamic_axes=network.axes,
                opset_version=network.options.opset,
                do_constant_folding=False,
                training=torch.onnx.TrainingMode.PRESERVE,
            )
        model = as_model(path)
        for value in model.graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):  # its file goes with the folder
                value.const_value = ir.Tensor(value.const_value.numpy().copy(), name=value.name)
    model.meta.update(files=(), from_file=False, external=False)
    _unshare(model)
    return model


@contextlib.contextmanager
def _taking_tensors(module: nn.Module, network: TorchNetwork) -> Iterator[None]:
    """Let `forward` take the tensors alone: of what is left out torch would make inputs, too, from its defaults."""
    names, forward = list(network.inputs), module.forward

    def taking_tensors(*tensors: Tensor) -> Any:
        arguments = network.with_inputs(dict(zip(names, tensors, strict=True)))
        return forward(*arguments.args, **arguments.kwargs)

    own = vars(module).get("forward")
    module.forward = taking_tensors
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


@contextlib.contextmanager
def _without_graphs() -> Iterator[None]:
    """Where it fails, it prints the whole graph on standard output; torch has no switch that it keeps to."""
    internals: Any = torch._C
    log = getattr(internals, "_jit_onnx_log", None)
    internals._jit_onnx_log = lambda *_: None
    try:
        yield
    finally:
        internals._jit_onnx_log = log


def _unshare(model: ir.Model) -> None:
    """Parameters of equal values come as one and an Identity for each other, under the parameter's name."""
    initializers = model.graph.initializers
    for node in [node for node in model.graph if node.op_type == "Identity"]:
        shared, (copy,) = node.inputs[0], node.outputs
        if shared is None or shared.name not in initializers or copy.is_graph_output():
            continue
        model.graph.remove(node)
        copy.const_value = shared.const_value
        own = ir.Value(name=copy.name, type=shared.type, shape=shared.shape, const_value=shared.const_value)
        ir.convenience.replace_all_uses_with(copy, own)
        model.graph.register_initializer(own)
