"""Open, save and check models. In memory a model is an `onnx_ir.Model`; of one from a file, big weights stay there.

Weights are memory-mapped on first use, whether they lie in the .onnx file or in external data; saving streams them
tensor by tensor, so neither direction holds more than one of them.

What is known of where a model comes from is in its `meta`: `files`, which are never written to, `from_file`, whether
they are the model as a whole, `bytes`, its size, `external`, whether its weights lay in a file of their own, and
`notes`, what a person should know of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import onnx
import onnx_ir as ir

from onnxprune.errors import ModelError, WrongTypeError
from onnxprune.model import protobuf as wire
from onnxprune.model.tensors import check_tensors
from onnxprune.model.unsupported import TYPES, made_dense, put_back, taken_out
from onnxprune.model.weights import write_raw
from onnxprune.support.files import check_target, moved_into_place
from onnxprune.support.messages import one_line

# protobuf refuses messages of 2 GiB; a margin is left for the graph itself.
_EMBED_LIMIT = 2**31 - 2**26
_ALIGNMENT = 64
# Before this IR version every initializer had to be listed among the graph inputs as well.
_CONSTANTS_NEED_NO_INPUT = 4


# What a model may be given as.
Given = str | os.PathLike[str] | bytes | onnx.ModelProto | ir.Model


def as_model(given: Given) -> ir.Model:
    """A model as people have it at hand, for work in memory; what was given is never changed.

    Args:
        given: the path of a file; an `onnx.ModelProto` or its bytes, with all weights inside; or an `onnx_ir.Model`,
            which is cloned. A clone shares its weights with the model that was given: don't write into their arrays.

    Raises WrongTypeError for anything else, ModelError for what is not a complete model.
    """
    if isinstance(given, str | os.PathLike):
        return open_model(given)
    if isinstance(given, ir.Model):
        return _cloned(given)
    if isinstance(given, onnx.ModelProto | bytes | bytearray | memoryview):
        return _parsed(_serialized(given), name_of(given))
    raise WrongTypeError(
        f"a model is given as a path, an onnx.ModelProto, its bytes or an onnx_ir.Model, not as {type(given).__name__}"
    )


def open_model(path: str | os.PathLike[str]) -> ir.Model:
    """Read `path`; weights of 1 kB and more stay on disk until they are looked at.

    Raises ModelError with one line when the file is missing, is not ONNX, is truncated, or when its external data is
    missing, too short or outside the model's folder.
    """
    path = Path(path)
    proto, ranges, external = _read(path)
    model = _built(proto, ranges, lambda *place: _mapped(path, *place), str(path))
    if external:
        _locate(model, path.parent)
    files = (path.absolute(), *external)
    size = sum(file.stat().st_size for file in files)
    model.meta.update(files=files, from_file=True, bytes=size, external=bool(external))
    return model


def data_files(path: str | os.PathLike[str]) -> list[Path]:
    """The files with external data of the model in `path`. Raises ModelError as `open_model`."""
    return _read(Path(path))[2]


def _read(path: Path) -> tuple[onnx.ModelProto, dict[str, tuple[int, int]], list[Path]]:
    """The graph of a file, where the bytes of its big weights lie in it, and the files with external data."""
    proto, ranges = _read_proto(path)
    _check_proto(proto, str(path))
    return proto, ranges, sorted(check_tensors(proto, str(path), path.parent, path.resolve().parent))


def _mapped(path: Path, tensor: ir.TensorProtocol, offset: int, length: int) -> ir.ExternalTensor:
    """A tensor whose bytes lie in a file, at an offset."""
    shape, name = ir.Shape(tensor.shape.numpy()), tensor.name or ""
    return ir.ExternalTensor(
        path.absolute(), offset, length, tensor.dtype, shape=shape, name=name, doc_string=tensor.doc_string
    )


def _locate(model: ir.Model, folder: Path) -> None:
    """Let external data be found from any folder.

    onnx-ir refuses files with several hard links where it knows a base folder; `check_tensors` has seen to it that they
    lie where they may.
    """
    ir.external_data.set_base_dir(model.graph, folder)
    for value in (value for graph in model.graphs() for value in graph.initializers.values()):
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            value.const_value = _mapped(folder / tensor.location, tensor, tensor.offset or 0, tensor.nbytes)


def _parsed(content: bytes, what: str) -> ir.Model:
    """The same from the content of a file; big weights are views of it."""
    try:
        proto, ranges = wire.split_weights(content)
    except wire.WireError:
        raise ModelError(f"{what} is not an ONNX model, or is truncated; export it again") from None
    _check_proto(proto, what)
    check_tensors(proto, what)

    def viewed(tensor: ir.TensorProtocol, offset: int, length: int) -> ir.TensorProtocol:
        raw, shape = np.frombuffer(content, np.uint8, length, offset), tensor.shape.numpy()
        if tensor.dtype.bitwidth < 8:
            return ir.PackedTensor(raw, tensor.dtype, shape=shape, name=tensor.name, doc_string=tensor.doc_string)
        array = raw.view(tensor.dtype.numpy()).reshape(shape)
        return ir.Tensor(array, tensor.dtype, name=tensor.name, doc_string=tensor.doc_string)

    model = _built(proto, ranges, viewed, what)
    model.meta.update(files=(), from_file=False, bytes=len(content), external=False)
    return model


def _cloned(given: ir.Model) -> ir.Model:
    """A copy of a model in memory. Raises ModelError where it cannot be copied, or weights of it are not there."""
    what = name_of(given)
    files: set[Path] = set()
    for value in given.graph.initializers.values():
        if value.const_value is None:
            raise ModelError(f"{what} has a weight '{value.name}' without a value")
        if isinstance(value.const_value, ir.ExternalTensor):
            files.add(Path(value.const_value.path).absolute())
    for file in files:
        if not file.is_file():
            raise ModelError(f"{what} has weights in {file}, which is missing")
    try:
        model = given.clone()
        _check_proto(skeleton(model), what)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{what} is not well formed: {one_line(error)}") from error
    _open_negative_sizes(model)
    for key in (TYPES, "notes"):
        model.meta[key] = given.meta.get(key, {} if key == TYPES else [])
    external = given.meta.get("external", bool(files))
    model.meta.update(files=tuple(sorted(files)), from_file=False, bytes=estimated_bytes(model), external=external)
    return model


def _check_proto(proto: onnx.ModelProto, what: str) -> None:
    """Raises ModelError for a model without a graph, an opset or an output."""
    if not proto.HasField("graph") or not proto.graph.node:
        raise ModelError(f"{what} is not an ONNX model: it holds no graph; check that it is the right file")
    if not proto.opset_import:
        raise ModelError(f"{what} declares no opset, so nothing can run it; export it again with a current tool")
    if not proto.graph.output:
        raise ModelError(f"{what} declares no output, so nothing in it can matter; export it again")


def _built(
    proto: onnx.ModelProto,
    ranges: Mapping[str, tuple[int, int]],
    weight: Callable[[ir.TensorProtocol, int, int], ir.TensorProtocol],
    what: str,
) -> ir.Model:
    """The model of a proto; `weight` makes the tensors whose bytes lie elsewhere, at the offset and length given."""
    dense, types = made_dense(proto, what), taken_out(proto)
    try:
        model = ir.from_proto(proto)
        for name, (offset, length) in ranges.items():
            value = model.graph.initializers.get(name)
            if value is None or value.const_value is None:
                raise ModelError(f"{what} is damaged: it holds a weight without a name; export or download it again")
            due = value.const_value.nbytes
            if due != length:
                raise ModelError(f"{what} is damaged: weight '{name}' has {length} bytes where {due} are due")
            value.const_value = weight(value.const_value, offset, length)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{what} is not a well-formed ONNX model, export or download it again: {one_line(error)}"
        ) from error
    model.meta[TYPES] = types
    model.meta["notes"] = [_said_dense(dense)] if dense else []
    _open_negative_sizes(model)
    return model


def _said_dense(names: list[str]) -> str:
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"sparse weights are written as dense ones, with their zeros ({shown}): nothing runs them faster"


def _open_negative_sizes(model: ir.Model) -> None:
    """Some exporters write -1 for a size that varies; ONNX Runtime takes it as that too."""
    made = (value for node in model.graph for value in node.outputs)
    for value in (*model.graph.inputs, *made, *model.graph.outputs):
        if value.shape is not None and any(isinstance(size, int) and size < 0 for size in value.shape):
            value.shape = ir.Shape([None if isinstance(size, int) and size < 0 else size for size in value.shape])


def _read_proto(path: Path) -> tuple[onnx.ModelProto, dict[str, tuple[int, int]]]:
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ModelError(f"{path} is not a file on disk; save the model to one first")
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise ModelError(f"{path} is empty; export or download it again")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data, memoryview(data) as view:
                return wire.split_weights(view)
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist; check the path") from None
    except IsADirectoryError:
        raise ModelError(f"{path} is a folder; give the .onnx file inside it") from None
    except wire.WireError:
        raise ModelError(f"{path} is not an ONNX file, or is truncated; export or download it again") from None
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from None


def _serialized(given: onnx.ModelProto | bytes | bytearray | memoryview) -> bytes:
    """The content of a file. Raises ModelError for a proto that is too large for one."""
    if not isinstance(given, onnx.ModelProto):
        return bytes(given)
    try:
        return bytes(given.SerializeToString())
    except Exception as error:  # protobuf's EncodeError has no stable import path
        raise ModelError(
            f"{name_of(given)} cannot be serialized, save it with external data and give the path: {one_line(error)}"
        ) from error


def name_of(given: Given) -> str:
    """How messages call a model: by its path, or in general."""
    return str(given) if isinstance(given, str | os.PathLike) else f"the {type(given).__name__} that was given"


def runnable(given: Given) -> Path | ir.Model:
    """The form that ONNX Runtime runs: the file where there is one, else a model in memory, see `as_model`."""
    return Path(given) if isinstance(given, str | os.PathLike) else as_model(given)


@contextlib.contextmanager
def on_disk(given: Given) -> Iterator[Path]:
    """A file that holds a model: its own, or a temporary one that goes when the block ends."""
    if isinstance(given, str | os.PathLike):
        yield Path(given)
        return
    with tempfile.TemporaryDirectory(prefix="onnxprune-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "model.onnx"
        if isinstance(given, ir.Model):
            save(given, path)
        else:
            path.write_bytes(_serialized(given))
        yield path


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
    put_back(proto, model.meta.get(TYPES, {}))
    if not all(value.is_graph_input() for value in values):
        proto.ir_version = max(proto.ir_version, _CONSTANTS_NEED_NO_INPUT)
    return proto


def file_bytes(model: ir.Model) -> int:
    """The size of a model when it was opened: on disk, with its external data, or about what it would take there."""
    return int(model.meta["bytes"])


def digest(model: ir.Model) -> str:
    """SHA-256 of the files that a model was opened from, one after the other; of one from elsewhere, of its content."""
    total = hashlib.sha256()
    if not model.meta.get("from_file"):
        tensors = [_initializer(value, None, None) for value in model.graph.initializers.values()]
        wire.write_model(skeleton(model), tensors, cast(BinaryIO, _Hashed(total)))
    for file in model.meta["files"] if model.meta.get("from_file") else ():
        with file.open("rb") as content:
            while block := content.read(1 << 20):
                total.update(block)
    return total.hexdigest()


def estimated_bytes(model: ir.Model) -> int:
    """About what `save` will write: exact but for a few dozen bytes per weight."""
    tensors = [value.const_value for value in model.graph.initializers.values()]
    return int(skeleton(model).ByteSize()) + sum(tensor.nbytes for tensor in tensors if tensor is not None)


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """A model as a message of onnx, its weights inside. Raises ModelError above 2 GB, where only files can hold it."""
    values = model.graph.initializers.values()
    if sum(value.const_value.nbytes for value in values if value.const_value is not None) > _EMBED_LIMIT:
        raise ModelError("the model is larger than the 2 GB that a message can hold; write it to a file with save()")
    content = io.BytesIO()
    wire.write_model(skeleton(model), [_initializer(value, None, None) for value in values], content)
    proto: onnx.ModelProto = onnx.ModelProto.FromString(content.getvalue())
    return proto


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
        wire.write_model(skeleton(model), tensors, out)


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


class _Hashed:
    """A file that is only hashed."""

    def __init__(self, total: hashlib._Hash) -> None:
        self.write = total.update
