"""Open, save and check ONNX files. In memory a model is an `onnx_ir.Model` whose big weights stay in the file.

Weights are memory-mapped on first use, whether they lie in the .onnx file or in external data; saving streams them
tensor by tensor, so neither direction holds more than one of them.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from onnxprune import wire
from onnxprune.errors import ModelError, UsageError

# protobuf refuses messages of 2 GiB; a margin is left for the graph itself.
_EMBED_LIMIT = 2**31 - 2**26
_ALIGNMENT = 64


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
        raise ModelError(f"{path} declares no opset, so ONNX Runtime cannot run it; export it again with a current tool")
    _check_external_data(proto, path)
    try:
        model = ir.from_proto(proto)
    except Exception as error:
        raise ModelError(f"{path} is not a well-formed ONNX model: {one_line(error)}") from error
    ir.external_data.set_base_dir(model.graph, path.parent)
    for name, (offset, length) in ranges.items():
        value = model.graph.initializers[name]
        value.const_value = _mapped(value.const_value, path, offset, length)
    model.meta["path"] = path
    model.meta["external"] = any(t.data_location == onnx.TensorProto.EXTERNAL for t in proto.graph.initializer)
    return model


def _read_proto(path: Path) -> tuple[onnx.ModelProto, dict[str, tuple[int, int]]]:
    try:
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


def _check_external_data(proto: onnx.ModelProto, path: Path) -> None:
    folder = path.parent.resolve()
    for tensor in _tensors(proto.graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        target = (folder / location).resolve()
        if not location or not target.is_relative_to(folder):
            raise ModelError(f"{path}: weight '{tensor.name}' points outside the model's folder ({location!r}); refused")
        if not target.is_file():
            raise ModelError(f"{path}: its external data file '{location}' is missing; put it beside the model")
        end = int(entries.get("offset", 0)) + int(entries.get("length", 0))
        if target.stat().st_size < end:
            raise ModelError(f"{path}: its external data file '{location}' is truncated; copy it again")


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor in the graph and its subgraphs."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _tensors(inner)


def skeleton(model: ir.Model) -> onnx.ModelProto:
    """The model as a proto without its initializers; the model itself is left as it is."""
    values = list(model.graph.initializers.values())
    model.graph.initializers.clear()
    try:
        return ir.to_proto(model)
    finally:
        for value in values:
            model.graph.register_initializer(value)


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
    source = model.meta.get("path")
    if source is not None and target.exists() and target.samefile(source):
        raise UsageError(f"{target} is the input file, which is never modified; choose another output with -o")
    if external is None:
        external = bool(model.meta.get("external"))
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.absolute().parent))
    except OSError as error:
        raise ModelError(f"cannot write to {target.absolute().parent}: {error.strerror}") from None
    try:
        written = folder / target.name
        _write(model, written, external)
        yield written
        for name in sorted(os.listdir(folder), reverse=True):  # the data file before the model that reads it
            os.replace(folder / name, target.with_name(name))
    except OSError as error:
        raise ModelError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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


def _initializer(value: ir.Value, data_name: str | None, out_data: object) -> wire.Initializer:
    tensor = value.const_value
    assert tensor is not None
    proto = onnx.TensorProto(name=value.name, data_type=tensor.dtype.value, dims=tensor.shape.numpy())
    if tensor.dtype == ir.DataType.STRING:
        proto.string_data.extend(tensor.string_data())  # type: ignore[attr-defined]
        return wire.Initializer(proto, 0, None)
    if data_name is None or tensor.nbytes < wire.BIG:
        return wire.Initializer(proto, tensor.nbytes, lambda: raw_bytes(tensor))
    out_data.write(b"\0" * (-out_data.tell() % _ALIGNMENT))  # type: ignore[attr-defined]
    proto.data_location = onnx.TensorProto.EXTERNAL
    place = {"location": data_name, "offset": out_data.tell(), "length": tensor.nbytes}  # type: ignore[attr-defined]
    for key, entry in place.items():
        proto.external_data.add(key=key, value=str(entry))
    out_data.write(raw_bytes(tensor))  # type: ignore[attr-defined]
    return wire.Initializer(proto, 0, None)


def raw_bytes(tensor: ir.TensorProtocol) -> bytes | memoryview:
    """The tensor as ONNX stores it: little-endian, row-major; a view of its memory where that already is so."""
    array = tensor.numpy()
    if array.nbytes != tensor.nbytes or np.dtype("<u2").newbyteorder("=") != np.dtype("<u2"):
        return tensor.tobytes()  # packed 4-bit types, big-endian machines
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def weight(value: ir.Value) -> npt.NDArray[np.generic]:
    """The array of an initializer, memory-mapped where it lies in a file. Raises KeyError when it is none."""
    if value.const_value is None:
        raise KeyError(value.name)
    return value.const_value.numpy()


def one_line(error: BaseException) -> str:
    """The first line of an error's message that says something, for messages to people."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def check(path: Path) -> None:
    """The onnx checker with strict shape inference on a file. Raises ModelError with its first line."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:
        raise ModelError(f"{path.name}: {one_line(error)}") from error
