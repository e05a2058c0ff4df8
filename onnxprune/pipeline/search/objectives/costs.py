"""Costs of a candidate, computed from what is left of it."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from onnxprune.pipeline.search.objectives.base import objective
from onnxprune.support.quantities import BYTES, COUNTS, show_bytes, show_count

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxprune.pipeline.search.workbench import Made


@objective("macs", early=True, units=COUNTS, show=show_count)
def macs(made: Made) -> tuple[float, float]:
    """Multiply-accumulates of a sample."""
    report = made.result.report
    return report.before.macs, report.after.macs


@objective("params", early=True, units=COUNTS, show=show_count)
def params(made: Made) -> tuple[float, float]:
    """Entries of all weights."""
    report = made.result.report
    return report.before.parameters, report.after.parameters


@objective("size", units=BYTES, show=show_bytes)
def size(made: Made) -> tuple[float, float]:
    """Bytes of the file, estimated from its parts."""
    return made.result.report.file_bytes


@objective("zipped", units=BYTES, show=show_bytes)
def zipped(made: Made) -> tuple[float, float]:
    """Bytes of the file once it is zipped: zeros and few bits count."""
    from onnxprune.model.file import to_proto

    def packed(model: object) -> int:
        return len(zlib.compress(to_proto(model).SerializeToString(), 6))  # type: ignore[arg-type]

    return made.bench.of_original("zipped", lambda: packed(made.bench.analysis.model)), packed(made.model)


@objective("sparsity", relative=False, show="{:.3f}".format)
def sparsity(made: Made) -> tuple[float, float]:
    """Share of the original's weights that are removed or zero."""
    import numpy as np

    from onnxprune.model.weights import is_weight

    def weights(model: ir.Model) -> list[ir.TensorProtocol]:
        found = [value for value in model.graph.initializers.values() if is_weight(value)]
        return [value.const_value for value in found if value.const_value is not None]

    def nonzero(model: ir.Model) -> int:
        return sum(int(np.count_nonzero(each.numpy())) for each in weights(model))

    entries = sum(each.size for each in weights(made.bench.analysis.model))
    before = made.bench.of_original("nonzero", lambda: nonzero(made.bench.analysis.model))
    return 1 - before / entries, 1 - nonzero(made.model) / entries
