"""Parts of ONNX that onnx-ir lacks: sparse tensors, which are made dense, and types with maps, which are carried.

Both are limits of the library, not faults of a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnxprune.errors import ModelError
from onnxprune.support.messages import one_line

# The key of a model's `meta` with what `taken_out` returns.
TYPES = "types with maps"
# A tensor of more entries than this takes gigabytes when it is made dense.
_MAX_ENTRIES = 1 << 29

Types = dict[str, bytes]


def made_dense(proto: onnx.ModelProto, what: str) -> list[str]:
    """Put dense weights in place of sparse ones, in place; their names. Raises ModelError for a malformed one."""
    names = []
    for graph in _graphs(proto):
        if not isinstance(graph, onnx.FunctionProto):
            for sparse in graph.sparse_initializer:
                graph.initializer.append(_dense(sparse, what))
                names.append(sparse.values.name)
            graph.ClearField("sparse_initializer")
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.SPARSE_TENSOR:
                    dense = _dense(attribute.sparse_tensor, what)
                    attribute.Clear()
                    attribute.CopyFrom(onnx.helper.make_attribute("value", dense))
                    names.append(node.output[0])
    return names


def taken_out(proto: onnx.ModelProto) -> Types:
    """Remove the types with maps from a proto, in place; those of inputs and outputs, by name, for `put_back`."""
    types: Types = {}
    for graph in _graphs(proto):
        for value in (*getattr(graph, "input", ()), *getattr(graph, "output", ()), *graph.value_info):
            if isinstance(value, onnx.ValueInfoProto) and _has_map(value.type):
                types[value.name] = value.type.SerializeToString()
                value.ClearField("type")
    return types


def put_back(proto: onnx.ModelProto, types: Types) -> None:
    """Give inputs and outputs the types that were taken out, in place."""
    for value in (*proto.graph.input, *proto.graph.output):
        if value.name in types:
            value.type.ParseFromString(types[value.name])


def _has_map(kind: onnx.TypeProto) -> bool:
    which = kind.WhichOneof("value")
    if which in ("sequence_type", "optional_type"):
        return _has_map(getattr(kind, which).elem_type)
    return bool(which == "map_type")


def _graphs(proto: onnx.ModelProto) -> Iterator[Any]:
    """The graph, the bodies of functions, and the graphs inside of nodes."""
    waiting: list[Any] = [proto.graph, *proto.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        waiting += _inner(graph.node)


def _inner(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield from attribute.graphs
            if attribute.HasField("g"):
                yield attribute.g


def _dense(sparse: onnx.SparseTensorProto, what: str) -> onnx.TensorProto:
    """The same numbers with the zeros between them. Indices are positions, or a row of coordinates for each number."""
    name, shape = sparse.values.name, tuple(sparse.dims)
    try:
        if np.prod(shape, dtype=np.float64) > _MAX_ENTRIES:
            raise ValueError(f"{shape} is too large to be made dense")
        values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
        array = np.zeros(shape, values.dtype)
        places = np.unravel_index(indices, shape) if indices.ndim == 1 else tuple(indices.T)
        array[places] = values
    except Exception as error:  # whatever a damaged tensor brings about
        raise ModelError(f"{what} is damaged: its sparse tensor '{name}' cannot be read: {one_line(error)}") from error
    return numpy_helper.from_array(array, name)
