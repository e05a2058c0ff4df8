"""What a candidate costs, computed from what is left of it."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from onnxprune.pipeline.search.objectives.base import objective
from onnxprune.support.quantities import BYTES, COUNTS, show_bytes, show_count

if TYPE_CHECKING:
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
