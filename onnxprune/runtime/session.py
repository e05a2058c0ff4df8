"""Run models in ONNX Runtime, from a file or from memory."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from onnxprune.errors import MissingExtraError, ModelError
from onnxprune.model.file import save, skeleton
from onnxprune.model.protobuf import BIG
from onnxprune.model.signature import Port, with_batch_axes
from onnxprune.model.weights import reading
from onnxprune.runtime.custom_ops import add_libraries
from onnxprune.runtime.page_cache import folder_with_much, returned
from onnxprune.runtime.providers import CPU_ONLY
from onnxprune.support.messages import one_line

# What can be run: a file, or a model in memory.
Runnable: TypeAlias = str | os.PathLike[str] | ir.Model

# A model in memory with more weights than this is run from a temporary file, which ONNX Runtime maps: the weights are
# then computed, written and mapped one by one, and never all there.
MEMORY_BYTES = 256 << 20
# Where a session keeps the temporary folder of its file.
_KEPT = "_onnxprune_folder"


class Session:
    """A model loaded to look at its results: as written, with little memory beside its weights.

    Args:
        model: a file, or a model in memory, which may be changed afterwards: the session has weights of its own.
        providers: execution providers of ONNX Runtime, by preference.
        optimized: for many runs, as fast as ONNX Runtime can; else nothing is rearranged and memory stays small.

    Raises ModelError with one line when ONNX Runtime refuses it.
    """

    def __init__(self, model: Runnable, providers: Sequence[str] = CPU_ONLY, *, optimized: bool = False) -> None:
        options = session_options()
        if not optimized:
            options.enable_cpu_mem_arena = False
            options.add_session_config_entry("session.disable_prepacking", "1")
            options.graph_optimization_level = type(options.graph_optimization_level).ORT_DISABLE_ALL
        self._session = load(model, options, providers, lean=True)
        self._folder = _folder_of(model, self._session)
        self.inputs, self.outputs = session_ports(self._session)

    def run(self, feed: Mapping[str, npt.NDArray[Any]], names: Sequence[str] | None = None) -> dict[str, Any]:
        """Outputs by name, all or those in `names`. Raises ModelError with one line when the run fails."""
        wanted = [port.name for port in self.outputs] if names is None else list(names)
        try:
            with returned(self._folder):
                results = self._session.run(wanted, dict(feed))
        except Exception as error:
            raise ModelError(f"ONNX Runtime cannot run the model: {reason(error)}") from error
        return dict(zip(wanted, results, strict=True))


def session_ports(session: Any) -> tuple[list[Port], list[Port]]:
    """Inputs and outputs of an `onnxruntime.InferenceSession`."""
    both = session.get_inputs(), session.get_outputs()
    return with_batch_axes(*([Port(each.name, each.type, tuple(each.shape)) for each in side] for side in both))


def session_options() -> Any:
    """`onnxruntime.SessionOptions` that keep ONNX Runtime from printing, with the libraries of `use_libraries`.

    Raises MissingExtraError without ONNX Runtime, ModelError for a library that it cannot load.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime", "cpu") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    add_libraries(options)
    return options


def load(model: Runnable, options: Any, providers: Sequence[str], *, lean: bool = False) -> Any:
    """An `onnxruntime.InferenceSession` for a file or a model in memory.

    Args:
        model: what to load.
        options: see `session_options`; they are used up.
        providers: execution providers of ONNX Runtime, by preference.
        lean: give pages of a mapped file back while it is loaded.

    Raises ModelError with one line when ONNX Runtime refuses it.
    """
    import onnxruntime

    name, kept = "the model", None
    try:
        if isinstance(model, ir.Model):
            weights = {key: tensor for key, tensor in _weights(model) if tensor is not None}
            if sum(tensor.nbytes for tensor in weights.values()) <= MEMORY_BYTES:
                return load_parts(skeleton(model), weights, options, providers)
            kept = tempfile.TemporaryDirectory(prefix="onnxprune-", ignore_cleanup_errors=True)
            path = Path(kept.name) / "model.onnx"
            save(model, path, external=True)
        else:
            path = Path(model)
            name = path.name
        with returned(folder_with_much(path.parent)) if lean else contextlib.nullcontext():
            session = onnxruntime.InferenceSession(
                str(path), options, providers=list(providers), **_falling_back(providers)
            )
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"ONNX Runtime cannot load {name}: {reason(error)}") from error
    setattr(session, _KEPT, kept)  # the file is mapped as long as the session lives
    return session


def _falling_back(providers: Sequence[str]) -> dict[str, Any]:
    """Options of a session: where the processor alone was asked for, a failure is not printed and tried once again."""
    return {"enable_fallback": int(tuple(providers) != CPU_ONLY)}


def load_parts(
    proto: onnx.ModelProto, weights: Mapping[str, ir.TensorProtocol], options: Any, providers: Sequence[str]
) -> Any:
    """An `onnxruntime.InferenceSession` for a model whose weights are in memory: they are handed over, not serialized.

    Args:
        proto: the model without those weights, which are added to it.
        weights: initializers by name; ONNX Runtime copies them.
        options: see `session_options`; they are used up.
        providers: execution providers of ONNX Runtime, by preference.
    """
    import onnxruntime

    names, values = [], []
    with contextlib.ExitStack() as stack:
        for name, tensor in weights.items():
            entry = proto.graph.initializer.add(name=name, data_type=tensor.dtype.value, dims=tensor.shape.numpy())
            if tensor.dtype == ir.DataType.STRING:
                entry.string_data.extend(tensor.string_data())  # type: ignore[attr-defined]
            elif tensor.nbytes < BIG or tensor.dtype.bitwidth < 8 or tensor.dtype.numpy().kind not in "fiub":
                entry.raw_data = tensor.tobytes()
            else:
                entry.data_location = onnx.TensorProto.EXTERNAL
                entry.external_data.add(key="location", value="memory")
                array = np.ascontiguousarray(stack.enter_context(reading(tensor)))
                names.append(name)
                values.append(onnxruntime.OrtValue.ortvalue_from_numpy(array))
        options.add_external_initializers(names, values)
        return onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=list(providers), **_falling_back(providers)
        )


def _weights(model: ir.Model) -> Iterator[tuple[str, ir.TensorProtocol | None]]:
    return ((name, value.const_value) for name, value in model.graph.initializers.items())


def _folder_of(model: Runnable, session: Any) -> Path | None:
    """Where the file is that a session has mapped, if there is one and it is large."""
    kept = getattr(session, _KEPT, None)
    if kept is not None:
        return Path(kept.name)
    return None if isinstance(model, ir.Model) else folder_with_much(Path(model).parent)


# What ONNX Runtime puts before its messages and says nothing new: codes, the path, a place in its own source.
_NOISE = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .*? failed: ?|/onnxruntime_src/\S+:\d+ .*?\) "
)


def reason(error: Exception) -> str:
    """The message of ONNX Runtime, in one line."""
    return one_line(ValueError(_NOISE.sub("", str(error))))
