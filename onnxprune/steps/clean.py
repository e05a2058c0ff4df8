"""Clean-ups of the file that is written, each asked for by name: they change weights and nodes, not what comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import onnx_ir as ir

from onnxprune.errors import UsageError
from onnxprune.passes.base import Pass
from onnxprune.passes.equalize import Equalize
from onnxprune.passes.fold_batchnorm import FoldBatchNorm
from onnxprune.support.messages import did_you_mean

# In the order in which they are applied.
CLEANERS: Mapping[str, Callable[[], Pass]] = {"fold-batchnorm": FoldBatchNorm, "equalize": Equalize}


def check_cleaners(names: Iterable[str]) -> None:
    """Raises UsageError for a name that is none."""
    for name in names:
        if name not in CLEANERS:
            raise UsageError(f"unknown clean-up '{name}'{did_you_mean(name, CLEANERS)}")


def clean(model: ir.Model, names: Iterable[str]) -> list[str]:
    """Apply the named clean-ups in place; a line for each that found nothing to do."""
    wanted = set(names)
    chosen = [name for name in CLEANERS if name in wanted]
    return [f"{name}: nothing to do" for name in chosen if not CLEANERS[name]()(model).modified]
