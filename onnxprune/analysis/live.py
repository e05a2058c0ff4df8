"""How much memory the values of a run take at a time."""

from __future__ import annotations

from math import prod

import onnx_ir as ir

from onnxprune.analysis.groups import Analysis
from onnxprune.model.graph import reads

_FLOAT = 4


def live_bytes(analysis: Analysis) -> int:
    """Bytes of the values that are there at once, at most: each from the node that makes it to the last that reads it.

    At the sizes of the analysis, nodes in the order of the graph; what bodies hold inside is not counted.
    """
    last: dict[str, int] = {}
    nodes = list(analysis.model.graph)
    for number, node in enumerate(nodes):
        last.update((value.name or "", number) for value in reads(node))
    last.update((value.name or "", len(nodes)) for value in analysis.model.graph.outputs)
    ending: dict[int, list[str]] = {}
    for name, number in last.items():
        if name in analysis.activations:
            ending.setdefault(number, []).append(name)
    held = sum(_bytes(analysis, value.name or "") for value in analysis.model.graph.inputs)
    most = held
    for number, node in enumerate(nodes):
        held += sum(_bytes(analysis, value.name or "") for value in node.outputs)
        most = max(most, held)
        held -= sum(_bytes(analysis, name) for name in ending.get(number, ()))
        held -= sum(_bytes(analysis, value.name or "") for value in node.outputs if value.name not in last)
    return most


def _bytes(analysis: Analysis, name: str) -> int:
    """Of a value that depends on the inputs."""
    shape = analysis.shapes.shapes.get(name)
    if shape is None or name not in analysis.activations:
        return 0
    dtype = analysis.shapes.dtypes.get(name)
    if dtype is None or dtype == ir.DataType.STRING:  # texts have no size of their own
        return prod(shape) * _FLOAT
    return prod(shape) * max(1, int(dtype.itemsize))
