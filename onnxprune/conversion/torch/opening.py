"""A module or exported program with its inputs, made ready: which axes are open, and inputs at two sizes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor
from torch.export import ExportedProgram

from onnxprune.conversion.base import ExportOptions, Opened, cause_of
from onnxprune.conversion.torch.axes import (
    BATCH,
    Axes,
    at_least_two,
    batch_of,
    given_axes,
    other_sizes,
    resized,
    sizes_in,
    varied,
)
from onnxprune.conversion.torch.dynamo import NAME as DYNAMO
from onnxprune.conversion.torch.dynamo import export_with_dynamo
from onnxprune.conversion.torch.network import TorchNetwork, as_array, bound, made_examples
from onnxprune.conversion.torch.torchscript import NAME as TORCHSCRIPT
from onnxprune.conversion.torch.torchscript import export_with_torchscript
from onnxprune.errors import ModelError

_EXPORTERS: dict[str, Callable[[TorchNetwork, list[str]], ir.Model]] = {
    DYNAMO: export_with_dynamo,
    TORCHSCRIPT: export_with_torchscript,
}
_SEED = 1


def opened_network(network: TorchNetwork) -> Opened:
    """The network tried on its inputs, and on inputs of other sizes.

    Raises ModelError where it does not run, or not at other sizes of axes that are to stay open.
    """
    network, notes = _with_axes(network)
    return _compared_at_two(network, notes)


def _compared_at_two(network: TorchNetwork, notes: list[str]) -> Opened:
    outputs = _run(network, network.inputs)
    if isinstance(outputs, str):
        raise ModelError(f"the network does not run on its example inputs: {outputs}")
    again = _run(network, network.inputs)
    repeatable = not isinstance(again, str) and all(
        torch.equal(first.nan_to_num(), second.nan_to_num())
        for first, second in zip(outputs.values(), again.values(), strict=True)
    )
    if not repeatable:
        notes.append("the network gives other numbers each time, so only the shapes of its outputs were compared")
    other = varied(_at_another_size(network) if network.axes else network.inputs, _SEED)
    feeds = tuple({name: as_array(tensor) for name, tensor in each.items()} for each in (network.inputs, other))
    exporters = {name: _exporter(export, network, list(outputs)) for name, export in _EXPORTERS.items()}
    return Opened(network.run, feeds, exporters, tuple(notes), repeatable)


def _exporter(
    export: Callable[[TorchNetwork, list[str]], ir.Model], network: TorchNetwork, outputs: list[str]
) -> Callable[[], ir.Model]:
    return lambda: export(network, outputs)


def _with_axes(network: TorchNetwork) -> tuple[TorchNetwork, list[str]]:
    """The axes that were named; else the batch, where the network takes other batches, and a note where it does not."""
    inputs, texts = network.inputs, network.options.dynamic
    if texts == ("none",):
        return network, []
    chosen = given_axes(texts, inputs) if texts else batch_of(inputs)
    found = _of_two(replace(network, axes=chosen))
    if texts:
        return found, []
    try:
        _at_another_size(found)
    except ModelError as error:
        return network, [f"the batch is fixed: {error}"]
    return found, []


def _of_two(network: TorchNetwork) -> TorchNetwork:
    arguments = network.with_inputs(at_least_two(network.inputs, network.axes))
    return replace(network, arguments=arguments)


def _at_another_size(network: TorchNetwork) -> dict[str, Tensor]:
    """Inputs of other sizes on all open axes, which the network takes. Raises ModelError where it takes none."""
    refused = ""
    for sizes in other_sizes(network.inputs, network.axes):
        inputs = resized(network.inputs, network.axes, sizes)
        outputs = _run(network, inputs)
        if not isinstance(outputs, str):
            return inputs
        refused = refused or f"{_written(sizes)} is refused ({outputs})"
    example = _written(sizes_in(network.inputs, network.axes))
    raise ModelError(f"the network runs at {example}, but {refused}")


def _run(network: TorchNetwork, inputs: dict[str, Tensor]) -> dict[str, Tensor] | str:
    """The outputs, or why there are none."""
    try:
        return network(inputs)
    except Exception as error:  # whatever the module raises
        return cause_of(error)


def _written(sizes: dict[str, int]) -> str:
    return ", ".join(f"{name}={size}" for name, size in sizes.items())


def opened_program(program: ExportedProgram, example_inputs: Any, options: ExportOptions) -> Opened:
    """An exported program, tried on the inputs that it was exported with.

    Raises ModelError where it has none and none are given, or where it does not run on them.
    """
    module, given = program.module(), example_inputs
    if given is None and program.example_inputs is not None:
        args, kwargs = program.example_inputs
        arguments = inspect.signature(module.forward).bind(*args, **kwargs)
    else:
        arguments = bound(module, made_examples(options.example) if options.example else given)
    network = TorchNetwork(program, arguments, {}, options)
    network = replace(network, axes=_axes_of(program, network.inputs))
    return _compared_at_two(network, [])


def _axes_of(program: ExportedProgram, inputs: dict[str, Tensor]) -> Axes:
    """The axes that it was exported with open sizes of; the first is the batch."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    symbols: dict[str, str] = {}
    axes: Axes = {}
    for name, user_input in zip(inputs, program.graph_signature.user_inputs, strict=False):
        value = values.get(str(user_input))
        for axis, size in enumerate(value.shape if isinstance(value, Tensor) else ()):
            if isinstance(size, torch.SymInt):
                called = symbols.setdefault(
                    str(size), BATCH if axis == 0 and BATCH not in symbols.values() else str(size)
                )
                axes.setdefault(name, {})[axis] = called
    return axes
