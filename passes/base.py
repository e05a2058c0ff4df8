"""What every pass has in common: `Model -> PassResult`, and the same thing again changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import onnx_ir as ir


@dataclass(frozen=True)
class PassResult:
    """What a pass did. `model` is the object that was given, changed in place; `modified=False` means it is equal."""

    model: ir.Model
    modified: bool
    notes: list[str] = field(default_factory=list)


class Pass(Protocol):
    """A frozen dataclass whose fields are its options."""

    def __call__(self, model: ir.Model) -> PassResult:
        """Apply the pass in place."""
