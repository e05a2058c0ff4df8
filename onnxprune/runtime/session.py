"""Run models in ONNX Runtime."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from onnxprune.errors import MissingExtraError, ModelError
from onnxprune.model.signature import Port
from onnxprune.runtime.page_cache import returned
from onnxprune.runtime.providers import CPU_ONLY
from onnxprune.support.messages import one_line


class Session:
    """A model loaded to look at its results: as written, with little memory beside its weights.

    Args:
        path: the file.
        providers: execution providers of ONNX Runtime, by preference.
        optimized: for many runs, as fast as ONNX Runtime can; else nothing is rearranged and memory stays small.

    Raises ModelError with one line when ONNX Runtime refuses it.
    """

    def __init__(self, path: Path, providers: Sequence[str] = CPU_ONLY, *, optimized: bool = False) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise MissingExtraError("onnxruntime", "cpu") from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        if not optimized:
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

    def run(self, feed: Mapping[str, npt.NDArray[Any]], names: Sequence[str] | None = None) -> dict[str, Any]:
        """Outputs by name, all or those in `names`. Raises ModelError with one line when the run fails."""
        wanted = [port.name for port in self.outputs] if names is None else list(names)
        try:
            with returned(self._folder):
                results = self._session.run(wanted, dict(feed))
        except Exception as error:
            raise ModelError(f"ONNX Runtime cannot run the model: {_reason(error)}") from error
        return dict(zip(wanted, results, strict=True))


# What ONNX Runtime puts before its messages and says nothing new: codes, the path, a place in its own source.
_NOISE = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .*? failed: ?|/onnxruntime_src/\S+:\d+ .*?\) "
)


def _reason(error: Exception) -> str:
    return one_line(ValueError(_NOISE.sub("", str(error))))
