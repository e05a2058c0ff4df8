"""The operators that a model may be made of."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from onnxprune.evaluation.gate.budgets.base import Finding, budget
from onnxprune.evaluation.gate.limits import Opsets, opsets, texts

if TYPE_CHECKING:
    from onnxprune.evaluation.gate.subject import Subject


@budget("allowed-ops", texts, written="Conv,Relu,com.microsoft:*", several=True, sample=("*", "com.example:*"))
def allowed_ops(patterns: Sequence[str], model: Subject) -> Finding:
    """Operators that may occur."""
    refused = [name for name in model.operators if not any(fnmatchcase(name, pattern) for pattern in patterns)]
    limit = ", ".join(patterns)
    return Finding(not refused, refused, f"also {', '.join(refused)}" if refused else "none else", f"only {limit}")


@budget("opset", opsets, written="17, 13-21, >=13", sample=(">=1", "1"))
def opset(versions: Opsets, model: Subject) -> Finding:
    """Version of the standard operators."""
    return Finding(model.opset in versions, model.opset, str(model.opset), versions.text)
