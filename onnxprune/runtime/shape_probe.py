"""See the shapes of values in a trial run, where no reasoning on the graph can tell them."""

from __future__ import annotations

import onnx_ir as ir

from onnxprune.errors import OnnxpruneError
from onnxprune.model.graph import with_outputs
from onnxprune.model.signature import synthetic_feed
from onnxprune.runtime.session import Session


def observe_shapes(
    model: ir.Model, names: list[str], bindings: dict[str, int]
) -> dict[str, tuple[tuple[int, ...], ir.DataType]]:
    """Shape and type of the named values in one run of ONNX Runtime on made-up inputs; empty where that cannot be.

    Args:
        model: what to run; it is left as it was.
        names: values of the main graph.
        bindings: sizes of the dynamic axes.
    """
    try:
        with with_outputs(model, names):
            session = Session(model)
        results = session.run(synthetic_feed(session.inputs, bindings))
    except OnnxpruneError:
        return {}
    wanted = set(names)
    return {
        name: (array.shape, ir.DataType.from_numpy(array.dtype))
        for name, array in results.items()
        if name in wanted and hasattr(array, "dtype") and array.dtype != object
    }
