"""Structured pruning of ONNX files: any ONNX file in, a smaller one with the same interface out.

    import onnxprune as op

    result = op.compress("model.onnx", data="samples.npz", target="macs=0.5")
    print(result)
    result.save("model.pruned.onnx")

Names are imported when they are first used, so that `import onnxprune` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.support.lazy import put_off_sympy

if TYPE_CHECKING:
    from onnxprune.analysis.groups import Analysis, Group
    from onnxprune.analysis.inspect import inspect
    from onnxprune.conversion.export import Exported, export
    from onnxprune.conversion.to_torch.file import TorchCode, to_torch
    from onnxprune.data.base import Data, load_data
    from onnxprune.errors import (
        DamageError,
        DamageWarning,
        DataError,
        MissingExtraError,
        ModelError,
        NothingToPruneError,
        OnnxpruneError,
        PlanError,
        TargetError,
        UsageError,
        VerificationError,
        WrongTypeError,
    )
    from onnxprune.evaluation.benchmark.suite import benchmark
    from onnxprune.evaluation.quality import Quality
    from onnxprune.pipeline.beside import recover, train
    from onnxprune.pipeline.evaluate import evaluate
    from onnxprune.pipeline.pair import compress_pair
    from onnxprune.pipeline.recipe import Recipe
    from onnxprune.pipeline.result import Report, Result
    from onnxprune.pipeline.run import apply, compress, quantize, sparsify
    from onnxprune.pipeline.scores import score, sensitivity
    from onnxprune.pipeline.search.curves import curves
    from onnxprune.pipeline.search.run import search
    from onnxprune.steps.base import Context, Step
    from onnxprune.steps.checkpoint import Checkpoint
    from onnxprune.steps.clean import Clean
    from onnxprune.steps.evaluate import Evaluate
    from onnxprune.steps.plan import Plan
    from onnxprune.steps.prune.step import Prune
    from onnxprune.steps.quantize.step import Quantize
    from onnxprune.steps.recover.step import Recover
    from onnxprune.steps.reinitialize import Reinitialize
    from onnxprune.steps.repeat import Repeat
    from onnxprune.steps.rewind import Rewind
    from onnxprune.steps.sparsify.step import Sparsify
    from onnxprune.steps.state import State
    from onnxprune.steps.train.step import Train

    __version__: str

put_off_sympy()

_HOMES = {
    "analysis.groups": ("Analysis", "Group"),
    "analysis.inspect": ("inspect",),
    "conversion.export": ("Exported", "export"),
    "conversion.to_torch.file": ("TorchCode", "to_torch"),
    "data.base": ("Data", "load_data"),
    "errors": (
        "DamageError",
        "DamageWarning",
        "DataError",
        "MissingExtraError",
        "ModelError",
        "NothingToPruneError",
        "OnnxpruneError",
        "PlanError",
        "TargetError",
        "UsageError",
        "VerificationError",
        "WrongTypeError",
    ),
    "evaluation.benchmark.suite": ("benchmark",),
    "evaluation.quality": ("Quality",),
    "pipeline.evaluate": ("evaluate",),
    "pipeline.pair": ("compress_pair",),
    "pipeline.recipe": ("Recipe",),
    "pipeline.result": ("Report", "Result"),
    "pipeline.search.curves": ("curves",),
    "pipeline.search.run": ("search",),
    "pipeline.beside": ("recover", "train"),
    "pipeline.run": ("apply", "compress", "quantize", "sparsify"),
    "pipeline.scores": ("score", "sensitivity"),
    "steps.base": ("Context", "Step"),
    "steps.checkpoint": ("Checkpoint",),
    "steps.clean": ("Clean",),
    "steps.evaluate": ("Evaluate",),
    "steps.plan": ("Plan",),
    "steps.prune.step": ("Prune",),
    "steps.quantize.step": ("Quantize",),
    "steps.recover.step": ("Recover",),
    "steps.reinitialize": ("Reinitialize",),
    "steps.repeat": ("Repeat",),
    "steps.rewind": ("Rewind",),
    "steps.sparsify.step": ("Sparsify",),
    "steps.state": ("State",),
    "steps.train.step": ("Train",),
}
_HOME = {name: f"onnxprune.{module}" for module, names in _HOMES.items() for name in names}

__all__ = [
    "Analysis",
    "Checkpoint",
    "Clean",
    "Context",
    "DamageError",
    "DamageWarning",
    "Data",
    "DataError",
    "Evaluate",
    "Exported",
    "Group",
    "MissingExtraError",
    "ModelError",
    "NothingToPruneError",
    "OnnxpruneError",
    "Plan",
    "PlanError",
    "Prune",
    "Quality",
    "Quantize",
    "Recipe",
    "Recover",
    "Reinitialize",
    "Repeat",
    "Report",
    "Result",
    "Rewind",
    "Sparsify",
    "State",
    "Step",
    "TargetError",
    "TorchCode",
    "Train",
    "UsageError",
    "VerificationError",
    "WrongTypeError",
    "__version__",
    "apply",
    "benchmark",
    "compress",
    "compress_pair",
    "curves",
    "evaluate",
    "export",
    "inspect",
    "load_data",
    "quantize",
    "recover",
    "score",
    "search",
    "sensitivity",
    "sparsify",
    "to_torch",
    "train",
]

_ROOT = Path(__file__).resolve().parent.parent
# `passes` and `recipes` lie beside this package in a checkout, and links lead there. Where links come out as text
# files, as in checkouts on Windows, they are found from the root of the repository.
if (_ROOT / "passes" / "__init__.py").exists() and not (Path(__file__).parent / "passes").is_dir():
    __path__.append(str(_ROOT))


def __getattr__(name: str) -> object:
    """Import a public name from the module that it lives in (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        return version("onnxprune")
    found: object = getattr(import_module(_HOME[name]), name) if name in _HOME else _step(name)
    if found is None:
        raise AttributeError(f"module 'onnxprune' has no attribute '{name}'")
    globals()[name] = found
    return found


def _step(name: str) -> object:
    """A step that was added, by the name of its class; None where there is none."""
    if not name[:1].isupper():
        return None
    from onnxprune.steps.base import steps

    return next((steps[each] for each in steps if steps[each].__name__ == name), None)


def __dir__() -> list[str]:
    return __all__
