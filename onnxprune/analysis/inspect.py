"""Open a model and find what can be pruned; where that fails, tell a broken file from a fault of ours."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping

import onnx_ir as ir

from onnxprune.analysis import cost
from onnxprune.analysis.canonicalize import canonicalize
from onnxprune.analysis.coupling import NO_DIMS, analyze
from onnxprune.analysis.groups import Analysis
from onnxprune.errors import ModelError, OnnxpruneError
from onnxprune.model.check import check_model, check_references
from onnxprune.model.file import Given, as_model
from onnxprune.model.graph import remove_dead
from onnxprune.ops.base import Dims
from onnxprune.runtime.shape_probe import observe_shapes
from onnxprune.support.garbage import no_garbage_collection


def inspect(given: Given, sizes: Mapping[str, int] = {}) -> Analysis:
    """Find what can be pruned of a model: a path, an `onnx.ModelProto`, its bytes, or an `onnx_ir.Model`.

    Args:
        given: it is only read.
        sizes: of dynamic axes, by name or `input[axis]`, at which MACs are to be counted; others are chosen.

    Raises ModelError with one line when it cannot be worked on, WrongTypeError when it is something else.
    """
    with blaming(given), no_garbage_collection():  # nothing of all that is made here is thrown away
        model = opened(given)
        model.meta["sizes"] = dict(sizes)
        return analyze_model(model)


def opened(given: Given) -> ir.Model:
    """A model to be analysed, with what it holds noted in it before anything changes."""
    model = as_model(given)
    model.meta["stored"] = cost.stored_cost(model)
    return model


@contextlib.contextmanager
def blaming(given: Given) -> Iterator[None]:
    """Where the block breaks down over a model that breaks the rules of ONNX, say that; else the fault is ours.

    What is raised on purpose says what is wrong itself, which need not be the file.
    """
    try:
        yield
    except (OnnxpruneError, MemoryError):
        raise
    except Exception as error:
        try:
            check_model(given)
            check_references(given)
        except ModelError as invalid:
            raise ModelError(f"not a valid ONNX model, export it again: {invalid}") from error
        raise


def analyze_model(model: ir.Model, start: Mapping[str, Dims] = NO_DIMS, open_ends: Collection[str] = ()) -> Analysis:
    """Bring an opened model into canonical form, in place, and find its groups; see `coupling.analyze`.

    The sizes that are wanted of dynamic axes are in its `meta`, which copies share.
    """
    with no_garbage_collection():
        _, shapes = canonicalize(model, observe_shapes, model.meta.get("sizes", {}))
        remove_dead(model)
        return analyze(model, shapes, start, open_ends)
