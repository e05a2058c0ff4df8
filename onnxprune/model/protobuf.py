"""ONNX files at the level of protobuf's wire format: open without reading the weights, write without holding them.

`onnx.load` copies every weight twice before the first one is looked at, and a file embeds them in one message that a
writer must otherwise build in memory. Here the big `raw_data` fields are found by their byte ranges (`split`), and a
file is streamed out tensor by tensor (`write`). Everything else is parsed and serialized by the onnx package.

Field numbers are those of onnx.proto: ModelProto.graph = 7, GraphProto.initializer = 5, TensorProto.raw_data = 9.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import onnx

_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# Below this a weight is parsed with the rest: shape constants and scalars are read anyway.
BIG = 1024

Buffer = memoryview | bytes


class WireError(ValueError):
    """The bytes are not a complete protobuf message."""


def split_weights(data: Buffer) -> tuple[onnx.ModelProto, dict[str, tuple[int, int]]]:
    """The model without the bytes of its big initializers, and where those lie: name -> (offset, length) in `data`.

    Raises WireError when the bytes are truncated or not protobuf.
    """
    ranges: dict[str, tuple[int, int]] = {}
    skeleton = bytearray()
    for number, wire_type, start, end, field_start in _fields(data, 0, len(data)):
        if number == _GRAPH and wire_type == _BYTES:
            graph = _without_weights(data, start, end, ranges)
            skeleton += _tag(_GRAPH) + _varint(len(graph)) + graph
        else:
            skeleton += data[field_start:end]
    try:
        return onnx.ModelProto.FromString(bytes(skeleton)), ranges
    except Exception as error:  # protobuf's DecodeError has no stable import path
        raise WireError(str(error)) from None


@dataclass(frozen=True)
class Initializer:
    """One weight to stream out: its TensorProto without raw data, and what writes those `nbytes` (None: none)."""

    proto: onnx.TensorProto
    nbytes: int
    write: Callable[[BinaryIO], object] | None

    def header(self) -> bytes:
        """Everything of the field in GraphProto up to the raw bytes."""
        body: bytes = self.proto.SerializeToString(deterministic=True)
        if self.write is not None:
            body += _tag(_RAW_DATA) + _varint(self.nbytes)
        return _tag(_INITIALIZER) + _varint(len(body) + (self.nbytes if self.write else 0)) + body


def write_model(model: onnx.ModelProto, initializers: Sequence[Initializer], out: BinaryIO) -> None:
    """Write `model` with `initializers` appended to its graph, holding the bytes of one at a time."""
    rest = onnx.ModelProto()
    rest.CopyFrom(model)
    rest.ClearField("graph")
    graph = model.graph.SerializeToString(deterministic=True)
    headers = [each.header() for each in initializers]
    total = len(graph) + sum(map(len, headers)) + sum(each.nbytes for each in initializers if each.write)
    out.write(rest.SerializeToString(deterministic=True))
    out.write(_tag(_GRAPH) + _varint(total))
    out.write(graph)
    for header, each in zip(headers, initializers, strict=True):
        out.write(header)
        if each.write is not None:
            each.write(out)


def _without_weights(data: Buffer, start: int, end: int, ranges: dict[str, tuple[int, int]]) -> bytearray:
    graph = bytearray()
    for number, wire_type, body, stop, field_start in _fields(data, start, end):
        tensor = _without_raw_data(data, body, stop, ranges) if number == _INITIALIZER and wire_type == _BYTES else None
        graph += data[field_start:stop] if tensor is None else _tag(_INITIALIZER) + _varint(len(tensor)) + tensor
    return graph


def _without_raw_data(data: Buffer, start: int, end: int, ranges: dict[str, tuple[int, int]]) -> bytes | None:
    """The tensor's other fields, or None when it holds no big raw data."""
    if end - start < BIG:
        return None
    kept, raw = bytearray(), None
    for number, wire_type, body, stop, field_start in _fields(data, start, end):
        if number == _RAW_DATA and wire_type == _BYTES:
            raw = (body, stop - body)
        else:
            kept += data[field_start:stop]
    if raw is None or raw[1] < BIG:
        return None
    ranges[onnx.TensorProto.FromString(bytes(kept)).name] = raw
    return bytes(kept)


def _fields(data: Buffer, at: int, end: int) -> Iterable[tuple[int, int, int, int, int]]:
    """(field number, wire type, body start, body end, field start) of each field between two offsets."""
    while at < end:
        field_start = at
        key, at = _read_varint(data, at, end)
        wire_type = key & 7
        if wire_type == _VARINT:
            body, (_, at) = at, _read_varint(data, at, end)
        elif wire_type == _BYTES:
            length, body = _read_varint(data, at, end)
            at = body + length
        elif wire_type in (_FIXED64, _FIXED32):
            body, at = at, at + (8 if wire_type == _FIXED64 else 4)
        else:
            raise WireError(f"unknown wire type {wire_type}")
        if at > end:
            raise WireError("a field runs past the end")
        yield key >> 3, wire_type, body, at, field_start


def _read_varint(data: Buffer, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise WireError("a number runs past the end")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _tag(number: int) -> bytes:
    return _varint(number << 3 | _BYTES)
