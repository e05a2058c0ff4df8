"""Open a model and find what can be pruned; where that fails, tell a broken file from a fault of ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir

from onnxprune.analysis import cost
from onnxprune.analysis.canonicalize import canonicalize
from onnxprune.analysis.coupling import analyze
from onnxprune.analysis.groups import Analysis
from onnxprune.errors import ModelError, PlanError, UsageError
from onnxprune.model.file import check, check_references, open_model
from onnxprune.model.graph import remove_dead
from onnxprune.runtime.shape_probe import observe
from onnxprune.support.garbage import no_garbage_collection


def inspect(path: str | Path) -> Analysis:
    """Open a model and find what can be pruned; the file is only read.

    Raises ModelError with one line when the file cannot be worked on.
    """
    with blaming(path), no_garbage_collection():  # nothing of all that is made here is thrown away
        model = open_model(path)
        model.meta["stored"] = cost.stored(model)
        return analyze_model(model)


@contextlib.contextmanager
def blaming(path: str | Path) -> Iterator[None]:
    """Where the block fails over a file that breaks the rules of ONNX, say that; for a valid file the fault is ours."""
    try:
        yield
    except (ModelError, PlanError, UsageError, MemoryError):
        raise
    except Exception as error:
        try:
            check(Path(path))
            check_references(Path(path))
        except ModelError as invalid:
            raise ModelError(f"not a valid ONNX model, export it again: {invalid}") from error
        raise


def analyze_model(model: ir.Model) -> Analysis:
    """Bring an opened model into canonical form, in place, and find its groups."""
    with no_garbage_collection():
        _, shapes = canonicalize(model, observe)
        remove_dead(model)
        return analyze(model, shapes)
