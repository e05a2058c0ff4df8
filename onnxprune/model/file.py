"""Open, save and check ONNX files. In memory a model is an `onnx_ir.Model` whose big weights stay in the file.

Weights are memory-mapped on first use, whether they lie in the .onnx file or in external data; saving streams them
tensor by tensor, so neither direction holds more than one of them.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import onnx
import onnx_ir as ir

from onnxprune.errors import ModelError
from onnxprune.model import protobuf as wire
from onnxprune.model.weights import write_raw
from onnxprune.support.files import check_target, moved_into_place
from onnxprune.support.messages import one_line

# protobuf refuses messages of 2 GiB; a margin is left for the graph itself.
_EMBED_LIMIT = 2**31 - 2**26
_ALIGNMENT = 64
# Before this IR version every initializer had to be listed among the graph inputs as well.
_CONSTANTS_NEED_NO_INPUT = 4


def open_model(path: str | os.PathLike[str]) -> ir.Model:
    """Read `path`; weights of 1 kB and more stay on disk until they are looked at.

    Raises ModelError with one line when the file is missing, is not ONNX, is truncated, or when its external data is
    missing, too short or outside the model's folder.
    """
    path = Path(path)
    proto, ranges = _read_proto(path)
    if not proto.HasField("graph") or not proto.graph.node:
        raise ModelError(f"{path} is not an ONNX model: it holds no graph; check that it is the right file")
    if not proto.opset_import:
        raise ModelError(f"{path} declares no opset, so nothing can run it; export it again with a current tool")
    if not proto.graph.output:
        raise ModelError(f"{path} declares no output, so nothing in it can matter; export it again")
    _open_negative_sizes(proto.graph)
    data_files = _check_external_data(proto, path)
    try:
        model = ir.from_proto(proto)
        for name, (offset, length) in ranges.items():
            value = model.graph.initializers.get(name)
            if value is None:
                raise ModelError(f"{path} is damaged: it holds a weight without a name; export or download it again")
            value.const_value = _mapped(value.const_value, path, offset, length)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{path} is not a well-formed ONNX model, export or download it again: {one_line(error)}"
        ) from error
    ir.external_data.set_base_dir(model.graph, path.parent)
    model.meta["files"] = (path.absolute(), *sorted(data_files))
    model.meta["external"] = bool(data_files)
    return model


def _open_negative_sizes(graph: onnx.GraphProto) -> None:
    """Some exporters write -1 for a size that varies; ONNX Runtime takes it as that too."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value < 0:
                dim.ClearField("dim_value")


def _read_proto(path: Path) -> tuple[onnx.ModelProto, dict[str, tuple[int, int]]]:
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ModelError(f"{path} is not a file on disk; save the model to one first")
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise ModelError(f"{path} is empty; export or download it again")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data, memoryview(data) as view:
                return wire.split(view)
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist; check the path") from None
    except IsADirectoryError:
        raise ModelError(f"{path} is a folder; give the .onnx file inside it") from None
    except wire.WireError:
        raise ModelError(f"{path} is not an ONNX file, or is truncated; export or download it again") from None
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from None


def _mapped(tensor: ir.TensorProtocol | None, path: Path, offset: int, length: int) -> ir.ExternalTensor:
    """The weight that lies at a byte range of the model file itself."""
    if tensor is None:
        raise ModelError(f"{path} holds an initializer without a value")
    shape = ir.Shape(tensor.shape.numpy())
    mapped = ir.ExternalTensor(
        path.absolute(), offset, length, tensor.dtype, shape=shape, name=tensor.name or "", doc_string=tensor.doc_string
    )
    if mapped.nbytes != length:
        raise ModelError(f"{path} is damaged: weight '{tensor.name}' has {length} bytes where {mapped.nbytes} are due")
    return mapped


def _check_external_data(proto: onnx.ModelProto, path: Path) -> set[Path]:
    """The files that hold external data. Raises ModelError for one that is missing, too short or out of bounds."""
    folder = path.parent.resolve()
    found: set[Path] = set()
    for tensor in _tensors(proto):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            _check_raw_data(tensor, path)
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        try:
            target = (folder / location).resolve()
            target.stat()
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:  # too long, a loop of links, a zero byte
            raise ModelError(
                f"{path}: the external data file of weight '{tensor.name}' cannot be read: {one_line(error)[:200]}; "
                "export the model again"
            ) from None
        if not location or not target.is_relative_to(folder):
            raise ModelError(
                f"{path}: weight '{tensor.name}' lies outside the model's folder ({location!r}), which is refused; "
                "copy the data file beside the model"
            )
        if not target.is_file():
            raise ModelError(f"{path}: its external data file '{location}' is missing; put it beside the model")
        if target.stat().st_size < _external_end(entries, path, tensor.name):
            raise ModelError(f"{path}: its external data file '{location}' is truncated; copy it again")
        found.add(target)
    return found


def _check_raw_data(tensor: onnx.TensorProto, path: Path) -> None:
    """Raises ModelError for a tensor with more or fewer bytes than its shape takes; the checker lets some pass."""
    if tensor.data_type == onnx.TensorProto.UNDEFINED:
        raise ModelError(f"{path} is damaged: weight '{tensor.name}' has no type; export or download it again")
    if not tensor.HasField("raw_data") or tensor.data_type not in onnx.TensorProto.DataType.values():
        return
    if tensor.data_type != onnx.TensorProto.STRING:
        due = (math.prod(tensor.dims) * ir.DataType(tensor.data_type).bitwidth + 7) // 8
        if len(tensor.raw_data) != due:
            raise ModelError(
                f"{path} is damaged: weight '{tensor.name}' has {len(tensor.raw_data)} bytes where {due} are due"
            )


def _external_end(entries: dict[str, str], path: Path, name: str) -> int:
    """Where the data of a tensor ends in its file."""
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", 0))
    except ValueError:
        offset = length = -1
    if offset < 0 or length < 0:
        raise ModelError(f"{path} is damaged: the place of weight '{name}' in the data file is not a number")
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


def skeleton(model: ir.Model) -> onnx.ModelProto:
    """The model as a proto without its initializers; the model itself is left as it is."""
    values = list(model.graph.initializers.values())
    model.graph.initializers.clear()
    try:
        proto = ir.to_proto(model)
    except Exception as error:
        raise ModelError(f"the model cannot be written as ONNX, export it again: {one_line(error)}") from error
    finally:
        for value in values:
            model.graph.register_initializer(value)
    if not all(value.is_graph_input() for value in values):
        proto.ir_version = max(proto.ir_version, _CONSTANTS_NEED_NO_INPUT)
    return proto


def file_bytes(model: ir.Model) -> int:
    """The size on disk of an opened model, with its external data."""
    return sum(file.stat().st_size for file in model.meta["files"])


def estimated_bytes(model: ir.Model) -> int:
    """About what `save` will write: exact but for a few dozen bytes per weight."""
    tensors = [value.const_value for value in model.graph.initializers.values()]
    return int(skeleton(model).ByteSize()) + sum(tensor.nbytes for tensor in tensors if tensor is not None)


@contextlib.contextmanager
def staged(model: ir.Model, target: str | os.PathLike[str], *, external: bool | None = None) -> Iterator[Path]:
    """Write `model` beside `target` and yield the path written; move it into place when the block ends well.

    Whatever goes wrong, before or inside the block, `target` is untouched and nothing is left behind.

    Args:
        model: what to write.
        target: where it goes in the end.
        external: weights in `<target>.data` (True), in the file (False), or (None) as the model was read, and
            external in any case from 2 GB on.

    Raises UsageError when `target` is the file that the model was read from, ModelError when it cannot be written.
    """
    target = Path(target)
    sources = model.meta.get("files", ())
    for name in (target, target.with_name(target.name + ".data")):
        check_target(name, *sources)
    if external is None:
        external = bool(model.meta.get("external"))
    with moved_into_place(target) as folder:
        _write(model, folder / target.name, external)
        yield folder / target.name


def save(model: ir.Model, target: str | os.PathLike[str], *, external: bool | None = None) -> None:
    """Write `model` to `target` atomically; see `staged` for the arguments and errors."""
    with staged(model, target, external=external):
        pass


def _write(model: ir.Model, path: Path, external: bool) -> None:
    values = [value for value in model.graph.initializers.values() if value.const_value is not None]
    total = sum(value.const_value.nbytes for value in values if value.const_value is not None)
    data = path.with_name(path.name + ".data") if external or total > _EMBED_LIMIT else None
    with path.open("wb") as out, open(data, "wb") if data else contextlib.nullcontext() as out_data:
        tensors = [_initializer(value, data.name if data else None, out_data) for value in values]
        wire.write(skeleton(model), tensors, out)


def _initializer(value: ir.Value, data_name: str | None, out_data: BinaryIO | None) -> wire.Initializer:
    tensor = value.const_value
    assert tensor is not None
    proto = onnx.TensorProto(name=value.name, data_type=tensor.dtype.value, dims=tensor.shape.numpy())
    if tensor.dtype == ir.DataType.STRING:
        proto.string_data.extend(tensor.string_data())  # type: ignore[attr-defined]
        return wire.Initializer(proto, 0, None)
    if data_name is None or out_data is None or tensor.nbytes < wire.BIG:
        return wire.Initializer(proto, tensor.nbytes, lambda out: write_raw(tensor, out))
    out_data.write(b"\0" * (-out_data.tell() % _ALIGNMENT))
    proto.data_location = onnx.TensorProto.EXTERNAL
    place = {"location": data_name, "offset": out_data.tell(), "length": tensor.nbytes}
    for key, entry in place.items():
        proto.external_data.add(key=key, value=str(entry))
    write_raw(tensor, out_data)
    return wire.Initializer(proto, 0, None)


def check_references(path: Path) -> None:
    """Raises ModelError where a node of the graph takes an attribute from a function around it: there is none, and the
    checker does not say so.
    """
    proto, _ = _read_proto(path)
    for node in proto.graph.node:
        if any(attribute.ref_attr_name for attribute in node.attribute):
            raise ModelError(f"{path.name}: node '{node.name}' refers to an attribute of a function")


def check(path: Path) -> None:
    """The onnx checker with strict shape inference on a file. Raises ModelError with its first line."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:
        raise ModelError(f"{path.name}: {one_line(error)}") from error
