"""Libraries with operators of their own, which every session of ONNX Runtime loads: also those of other processes."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from onnxprune.errors import ModelError, UsageError
from onnxprune.support.messages import one_line

# Processes that are started inherit it, so their sessions have the same operators.
VARIABLE = "ONNXPRUNE_CUSTOM_OPS"
EXTENSIONS = "onnxruntime_extensions"


def use_libraries(libraries: Iterable[str | os.PathLike[str]]) -> None:
    """Have all sessions load these libraries, from now on until the process ends.

    Args:
        libraries: shared libraries, or `onnxruntime_extensions` for that of the installed package.

    Raises UsageError for a file that is not there, and where the package is not installed.
    """
    paths = [_located(library) for library in libraries]
    known = [path for path in os.environ.get(VARIABLE, "").split(os.pathsep) if path]
    if paths:
        os.environ[VARIABLE] = os.pathsep.join(dict.fromkeys([*known, *paths]))


def add_libraries(options: Any) -> None:
    """Add the libraries to `onnxruntime.SessionOptions`. Raises ModelError for one that cannot be loaded."""
    for path in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        try:
            options.register_custom_ops_library(path)
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise ModelError(f"ONNX Runtime cannot load the operators in {path}: {one_line(error)}") from error


def _located(library: str | os.PathLike[str]) -> str:
    path = Path(library)
    if path.is_file():
        return str(path.absolute())
    if str(library) != EXTENSIONS:
        raise UsageError(f"the library {library} does not exist; check the path of --custom-ops")
    try:
        return str(importlib.import_module(EXTENSIONS).get_library_path())
    except ImportError:
        raise UsageError("onnxruntime-extensions is not installed: pip install onnxruntime-extensions") from None
