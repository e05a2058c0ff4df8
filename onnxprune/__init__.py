"""Structured pruning of ONNX files: any ONNX file in, a smaller one with the same interface out.

    import onnxprune as op

    result = op.compress("model.onnx", criterion="l1", ratio=0.5)
    print(result.report.before.parameters, result.report.after.parameters)
    result.save("model.pruned.onnx")

Names are imported when they are first used, so that `import onnxprune` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from onnxprune.support.lazy import put_off_sympy

if TYPE_CHECKING:
    from onnxprune.analysis.groups import Analysis, Group
    from onnxprune.analysis.inspect import inspect
    from onnxprune.errors import (
        MissingExtraError,
        ModelError,
        NothingToPruneError,
        OnnxpruneError,
        PlanError,
        UsageError,
        VerificationError,
    )
    from onnxprune.pipeline.result import Report, Result
    from onnxprune.pipeline.run import apply, compress
    from onnxprune.steps.plan import Plan

    __version__: str

put_off_sympy()

_HOMES = {
    "analysis.groups": ("Analysis", "Group"),
    "errors": (
        "MissingExtraError",
        "ModelError",
        "NothingToPruneError",
        "OnnxpruneError",
        "PlanError",
        "UsageError",
        "VerificationError",
    ),
    "analysis.inspect": ("inspect",),
    "pipeline.run": ("apply", "compress"),
    "steps.plan": ("Plan",),
    "pipeline.result": ("Report", "Result"),
}
_HOME = {name: f"onnxprune.{module}" for module, names in _HOMES.items() for name in names}

__all__ = [
    "Analysis",
    "Group",
    "MissingExtraError",
    "ModelError",
    "NothingToPruneError",
    "OnnxpruneError",
    "Plan",
    "PlanError",
    "Report",
    "Result",
    "UsageError",
    "VerificationError",
    "__version__",
    "apply",
    "compress",
    "inspect",
]


def __getattr__(name: str) -> object:
    """Import a public name from the module that it lives in (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        return version("onnxprune")
    if name not in _HOME:
        raise AttributeError(f"module 'onnxprune' has no attribute '{name}'")
    found: object = getattr(import_module(_HOME[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
