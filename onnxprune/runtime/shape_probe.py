"""See the shapes of values in a trial run, where no reasoning on the graph can tell them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx_ir as ir

from onnxprune.errors import OnnxpruneError
from onnxprune.model.file import save
from onnxprune.model.signature import synthetic_feed
from onnxprune.runtime.session import Session


def observe(
    model: ir.Model, names: list[str], bindings: dict[str, int]
) -> dict[str, tuple[tuple[int, ...], ir.DataType]]:
    """Shape and type of the named values in one run of ONNX Runtime on made-up inputs; empty where that cannot be.

    Args:
        model: what to run; it is written to a temporary file with the values as further outputs.
        names: values of the main graph.
        bindings: sizes of the dynamic axes.
    """
    values = {value.name: value for node in model.graph for value in node.outputs}
    extra = [values[name] for name in names if not values[name].is_graph_output()]
    count = len(model.graph.outputs)
    model.graph.outputs.extend(extra)
    try:
        with tempfile.TemporaryDirectory() as folder:
            save(model, Path(folder) / "model.onnx")
            session = Session(Path(folder) / "model.onnx")
        results = session.run(synthetic_feed(session.inputs, bindings))
    except OnnxpruneError:
        return {}
    finally:
        model.graph.outputs[count:] = []  # unlike del, this tells the values
    wanted = set(names)
    return {
        name: (array.shape, ir.DataType.from_numpy(array.dtype))
        for name, array in results.items()
        if name in wanted and hasattr(array, "dtype") and array.dtype != object
    }
