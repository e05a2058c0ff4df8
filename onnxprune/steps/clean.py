"""Clean-ups of the file that is written, each asked for by name: they change weights and nodes, not what comes out."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from onnxprune.passes.base import in_order


def check_cleaners(names: Iterable[str]) -> None:
    """Raises UsageError for a name that is none."""
    in_order(set(names))


def clean(model: ir.Model, names: Iterable[str]) -> list[str]:
    """Apply the named clean-ups in place; a line for each that found nothing to do."""
    return [f"{found.name}: nothing to do" for found in in_order(set(names)) if not found.make()(model).modified]
