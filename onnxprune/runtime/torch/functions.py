"""Operators that the standard defines by a function of simpler ones: their bodies, for those not in the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
import onnx_ir as ir
import torch
from torch import Tensor

from onnxprune.runtime.torch.ops.base import TORCH_TYPES

_ONNX_TYPES = {dtype: code for code, dtype in reversed(TORCH_TYPES.items())}


def schema_of(node: ir.Node, version: int) -> Any:
    """The standard's definition (an OpSchema) of an operator that has a function body, None where it has none."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    try:
        schema: Any = onnx.defs.get_schema(node.op_type, version, domain)
    except onnx.defs.SchemaError:
        return None
    return schema if schema.has_function or schema.has_context_dependent_function else None


def attribute_defaults(schema: Any) -> dict[str, ir.Attr]:
    """The attributes that hold where a node states none."""
    stated = {name: attribute.default_value for name, attribute in schema.attributes.items()}
    return {name: ir.serde.deserialize_attribute(proto) for name, proto in stated.items() if proto.name}


def plain_body(schema: Any) -> ir.Function:
    """The body of an operator whose definition is the same for all types."""
    return ir.serde.deserialize_function(schema.function_body)


def typed_body(schema: Any, node: ir.Node, inputs: Sequence[Tensor | None]) -> ir.Function:
    """The body of an operator whose definition depends on the types of its inputs."""
    types = [_type(value).SerializeToString() for value in inputs]
    version = max(schema.context_dependent_function_opset_versions)
    written = ir.serde.serialize_node(node).SerializeToString()
    body = schema.get_context_dependent_function_with_opset_version(version, written, types)
    return ir.serde.deserialize_function(_complete(onnx.FunctionProto.FromString(body)))


def _complete(body: onnx.FunctionProto) -> onnx.FunctionProto:
    """With a node, that computes nothing, for every output that the node did not ask for and the body leaves out."""
    made = {name for node in body.node for name in node.output}
    body.node.extend(onnx.helper.make_node("Optional", [], [name]) for name in body.output if name not in made)
    return body


def _type(value: Tensor | None) -> onnx.TypeProto:
    if value is None:
        return onnx.TypeProto()
    return onnx.helper.make_tensor_type_proto(_ONNX_TYPES[value.dtype], list(value.shape))


def signature(inputs: Sequence[Tensor | None]) -> tuple[tuple[torch.dtype, int] | None, ...]:
    """The facts that a body can depend on: types and ranks of the inputs, and which are there."""
    return tuple(None if value is None else (value.dtype, value.ndim) for value in inputs)
