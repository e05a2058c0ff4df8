"""Is an exported model the network that it was made from? Both are run on the same inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.conversion.base import Opened
from onnxprune.errors import ModelError
from onnxprune.runtime.session import Session

Array = npt.NDArray[Any]

# Largest difference that counts as rounding, relative to the largest value of the output.
_ROUNDING = {"float64": 1e-3, "float32": 1e-3, "float16": 2e-2}
# Share of whole numbers that may differ: places of largest values, where two values are equal up to rounding.
_TIES = 0.01


@dataclass(frozen=True)
class OutputCheck:
    """A run of both on the same inputs.

    Attributes:
        shapes: of the inputs, by name.
        difference: the largest one between the outputs, relative to the largest value of the output; None where the
            network gives other numbers each time.
    """

    shapes: dict[str, tuple[int, ...]]
    difference: float | None


def compared(model: ir.Model, opened: Opened) -> tuple[OutputCheck, ...]:
    """Run the model beside the network, on every feed. Raises ModelError where it does not run or differs."""
    session = Session(model)
    names = {port.name for port in session.inputs}
    found = []
    for feed in opened.feeds:
        due = opened.run(feed)
        outputs = session.run({name: array for name, array in feed.items() if name in names})
        given = [outputs[port.name] for port in session.outputs]
        if len(given) != len(due):
            raise ModelError(f"it gives {len(given)} outputs where the network gives {len(due)}")
        ports = [port.name for port in session.outputs]
        differences = [
            _difference(name, *both, numbers=opened.repeatable) for name, *both in zip(ports, due, given, strict=True)
        ]
        shapes = {name: array.shape for name, array in feed.items()}
        found.append(OutputCheck(shapes, max(differences, default=0.0) if opened.repeatable else None))
    return tuple(found)


def _difference(name: str, due: Array, given: Array, *, numbers: bool) -> float:
    """Raises ModelError where it is more than rounding makes."""
    if due.shape != given.shape:
        raise ModelError(f"output '{name}' has the shape {shape_text(given.shape)}, not {shape_text(due.shape)}")
    if not numbers or due.size == 0:
        return 0.0
    if due.dtype.kind not in "fc":
        share = float(np.mean(due != given))
        if share > _TIES:
            raise ModelError(f"{share:.0%} of output '{name}' differ from the network's")
        return share
    wide, other = due.astype(np.complex128), given.astype(np.complex128)
    if not np.array_equal(np.isfinite(wide), np.isfinite(other)):
        raise ModelError(f"output '{name}' is finite elsewhere than the network's")
    finite = np.isfinite(wide)
    scale = float(np.abs(wide[finite]).max(initial=0.0))
    difference = float(np.abs(wide - other)[finite].max(initial=0.0)) / (scale or 1.0)
    if difference > _ROUNDING.get(due.dtype.name, 1e-3):
        raise ModelError(f"output '{name}' differs from the network's by {difference:.1e} of its largest value")
    return difference


def shape_text(shape: Sequence[int]) -> str:
    """`2x3x32x32`, for messages."""
    return "x".join(map(str, shape)) or "a scalar"
