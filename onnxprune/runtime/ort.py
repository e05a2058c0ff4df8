"""Run models in ONNX Runtime."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.errors import MissingExtraError, ModelError
from onnxprune.model import one_line
from onnxprune.runtime.pages import returned

Feed = dict[str, npt.NDArray[Any]]

_TYPES = {
    "float": np.float32,
    "float16": np.float16,
    "double": np.float64,
    "int64": np.int64,
    "int32": np.int32,
    "int16": np.int16,
    "int8": np.int8,
    "uint64": np.uint64,
    "uint32": np.uint32,
    "uint16": np.uint16,
    "uint8": np.uint8,
    "bool": np.bool_,
    "string": np.str_,
}

# An input of more entries than this takes gigabytes: a slip in the file, most likely.
_MAX_ENTRIES = 1 << 28


@dataclass(frozen=True)
class Port:
    """One graph input or output as ONNX Runtime reports it: symbolic axes are names or None."""

    name: str
    type: str
    shape: tuple[int | str | None, ...]


class Session:
    """A model loaded for one run: as written, not optimized, with little memory beside its weights.

    Raises ModelError with one line when ONNX Runtime refuses it.
    """

    def __init__(self, path: Path, providers: Sequence[str] = ("CPUExecutionProvider",)) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise MissingExtraError("onnxruntime", "cpu") from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.enable_cpu_mem_arena = False
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            with returned(path.parent):
                self._session = onnxruntime.InferenceSession(str(path), options, providers=list(providers))
        except Exception as error:
            raise ModelError(f"ONNX Runtime cannot load {path.name}: {_reason(error)}") from error
        self._folder = path.parent
        self.inputs = [Port(p.name, p.type, tuple(p.shape)) for p in self._session.get_inputs()]
        self.outputs = [Port(p.name, p.type, tuple(p.shape)) for p in self._session.get_outputs()]

    def run(self, feed: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
        """Outputs by name. Raises ModelError with one line when the run fails."""
        try:
            with returned(self._folder):
                results = self._session.run(None, dict(feed))
        except Exception as error:
            raise ModelError(f"ONNX Runtime cannot run the model: {_reason(error)}") from error
        return dict(zip((port.name for port in self.outputs), results, strict=True))


# What ONNX Runtime puts before its messages and says nothing new: codes, the path, a place in its own source.
_NOISE = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .*? failed: ?|/onnxruntime_src/\S+:\d+ .*?\) "
)


def _reason(error: Exception) -> str:
    return one_line(ValueError(_NOISE.sub("", str(error))))


def synthetic_feed(ports: Sequence[Port], sizes: Mapping[str, int], seed: int = 0) -> Feed:
    """Inputs made from the signature alone: normal floats, small indices, all-true masks.

    Args:
        ports: the inputs.
        sizes: the size of each symbolic axis, by its name or `input[axis]`.
        seed: of the generator.

    Raises ModelError for an input that cannot be made: a sequence or a map, or one too large for any memory.
    """
    rng = np.random.default_rng(seed)
    return {port.name: _make(port, sizes, rng) for port in ports}


def _make(port: Port, sizes: Mapping[str, int], rng: np.random.Generator) -> npt.NDArray[Any]:
    dtype = _TYPES.get(port.type.removeprefix("tensor(").removesuffix(")"))
    if dtype is None:
        raise ModelError(f"input '{port.name}' has type {port.type}, for which no trial input can be made")
    shape = [
        size if isinstance(size, int) else sizes.get(size or f"{port.name}[{axis}]", 1)
        for axis, size in enumerate(port.shape)
    ]
    if prod(shape) > _MAX_ENTRIES:
        raise ModelError(f"input '{port.name}' is declared with {prod(shape)} entries: too many for a trial run")
    if np.issubdtype(dtype, np.floating):
        return np.asarray(rng.standard_normal(shape)).astype(dtype)
    if dtype is np.bool_:
        return np.ones(shape, dtype=dtype)
    if dtype is np.str_:
        return np.full(shape, "a", dtype=object)
    return np.asarray(rng.integers(0, 2, shape)).astype(dtype)
