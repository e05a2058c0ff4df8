"""Checks of the tensors in a proto, before anything is built from it: are all their bytes there?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir

from onnxprune.errors import ModelError
from onnxprune.support.messages import one_line


def check_tensors(proto: onnx.ModelProto, what: str, *folders: Path) -> set[Path]:
    """The files that hold external data of a model.

    Args:
        proto: the model.
        what: how messages call it.
        folders: that of the model's file, and that of the file it is a link to, as in caches of downloads; external
            data has to lie in one of them. None are given where there is no such file.

    Raises ModelError for a tensor whose bytes are not all there, and for external data that is in none of `folders`.
    """
    found: set[Path] = set()
    for tensor in _tensors(proto):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            _check_raw_data(tensor, what)
        elif not folders:
            raise ModelError(
                f"{what} keeps weight '{tensor.name}' in a file beside it, and nothing says in which folder; give the "
                "path of the .onnx file instead"
            )
        else:
            found.add(_external_file(tensor, [folder.resolve() for folder in folders], what))
    return found


def _external_file(tensor: onnx.TensorProto, folders: list[Path], what: str) -> Path:
    """Where the data of a tensor is. Raises ModelError for a file that is missing, too short or out of bounds."""
    entries: dict[str, str] = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    try:
        target = (folders[0] / location).resolve()
        target.stat()
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # too long, a loop of links, a zero byte
        raise ModelError(
            f"{what}: the external data file of weight '{tensor.name}' cannot be read: {one_line(error)[:200]}; "
            "export the model again"
        ) from None
    if not location or not any(map(target.is_relative_to, folders)):
        raise ModelError(
            f"{what}: weight '{tensor.name}' lies outside the model's folder ({location!r}), which is refused; "
            "copy the data file beside the model"
        )
    if not target.is_file():
        raise ModelError(f"{what}: its external data file '{location}' is missing; put it beside the model")
    if target.stat().st_size < _external_end(entries, what, tensor.name):
        raise ModelError(f"{what}: its external data file '{location}' is truncated; copy it again")
    return target


def _check_raw_data(tensor: onnx.TensorProto, what: str) -> None:
    """Raises ModelError for a tensor with more or fewer bytes than its shape takes; the checker lets some pass."""
    if tensor.data_type == onnx.TensorProto.UNDEFINED:
        raise ModelError(f"{what} is damaged: weight '{tensor.name}' has no type; export or download it again")
    if not tensor.HasField("raw_data") or tensor.data_type not in onnx.TensorProto.DataType.values():
        return
    if tensor.data_type != onnx.TensorProto.STRING:
        due = (math.prod(tensor.dims) * ir.DataType(tensor.data_type).bitwidth + 7) // 8
        if len(tensor.raw_data) != due:
            raise ModelError(
                f"{what} is damaged: weight '{tensor.name}' has {len(tensor.raw_data)} bytes where {due} are due"
            )


def _external_end(entries: dict[str, str], what: str, name: str) -> int:
    """Where the data of a tensor ends in its file."""
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", 0))
    except ValueError:
        offset = length = -1
    if offset < 0 or length < 0:
        raise ModelError(f"{what} is damaged: the place of weight '{name}' in the data file is not a number")
    return offset + length


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor in the graph, its subgraphs and the model's functions."""
    bodies: list[onnx.GraphProto | onnx.FunctionProto] = [proto.graph, *proto.functions]
    while bodies:
        body = bodies.pop()
        if isinstance(body, onnx.GraphProto):
            yield from body.initializer
            for sparse in body.sparse_initializer:
                yield from (sparse.values, sparse.indices)
        for attribute in (attribute for node in body.node for attribute in node.attribute):
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            bodies.extend([attribute.g] if attribute.HasField("g") else [])
            bodies.extend(attribute.graphs)
