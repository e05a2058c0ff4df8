"""Open a model and find what can be pruned; where that fails, tell a broken file from a fault of ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import onnx_ir as ir

from onnxprune.analysis import cost
from onnxprune.analysis.canonicalize import canonicalize
from onnxprune.analysis.coupling import NO_DIMS, analyze
from onnxprune.analysis.groups import Analysis
from onnxprune.errors import ModelError, PlanError, UsageError
from onnxprune.model.file import Given, as_model, check_model, check_references
from onnxprune.model.graph import remove_dead
from onnxprune.ops.base import Dims
from onnxprune.runtime.shape_probe import observe_shapes
from onnxprune.support.garbage import no_garbage_collection


def inspect(given: Given) -> Analysis:
    """Find what can be pruned of a model: a path, an `onnx.ModelProto`, its bytes, or an `onnx_ir.Model`.

    What was given is only read. Raises ModelError with one line when it cannot be worked on, WrongTypeError when it is
    something else.
    """
    with blaming(given), no_garbage_collection():  # nothing of all that is made here is thrown away
        model = as_model(given)
        model.meta["stored"] = cost.stored_cost(model)
        return analyze_model(model)


@contextlib.contextmanager
def blaming(given: Given) -> Iterator[None]:
    """Where the block fails over a model that breaks the rules of ONNX, say that; for a valid one the fault is ours."""
    try:
        yield
    except (ModelError, PlanError, UsageError, MemoryError):
        raise
    except Exception as error:
        try:
            check_model(given)
            check_references(given)
        except ModelError as invalid:
            raise ModelError(f"not a valid ONNX model, export it again: {invalid}") from error
        raise


def analyze_model(model: ir.Model, start: Mapping[str, Dims] = NO_DIMS) -> Analysis:
    """Bring an opened model into canonical form, in place, and find its groups; `start` as for `coupling.analyze`."""
    with no_garbage_collection():
        _, shapes = canonicalize(model, observe_shapes)
        remove_dead(model)
        return analyze(model, shapes, start)
