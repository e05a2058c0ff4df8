"""A model and the same with units removed, as the recovery tests need them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.analysis.inspect import analyze_model
from onnxprune.model.file import save
from onnxprune.passes.remove_dead import RemoveDead
from onnxprune.passes.remove_units import RemoveUnits
from onnxprune.pipeline.run import inspect
from onnxprune.runtime.session import Session
from onnxprune.steps.plan import Plan, Removal
from onnxprune.steps.recover.pairing import Pairing

Array = npt.NDArray[Any]


def pair(path: Path, remove: dict[str, tuple[int, ...]]) -> Pairing:
    """The model at `path` beside the same without some units of each group."""
    original, pruned = inspect(path), inspect(path)
    units = {group.id: group.units for group in original.groups}
    plan = Plan(tuple(Removal(group, "", units[group], gone) for group, gone in remove.items()))
    keep = plan.keep(original)
    RemoveUnits(pruned, plan.keep(pruned))(pruned.model)
    RemoveDead()(pruned.model)
    return Pairing(original, analyze_model(pruned.model), keep)


def thinned(path: Path, every: int) -> Pairing:
    """The same without one of `every` units of every group that no norm reduces over."""
    groups = [group for group in inspect(path).groups if not group.statistics]
    return pair(path, {group.id: tuple(range(1, group.units, every)) for group in groups})


def feeds(name: str = "x", shape: tuple[int, ...] = (4,), batches: int = 5, size: int = 40) -> list[dict[str, Array]]:
    """Normal inputs."""
    rng = np.random.default_rng(0)
    return [{name: rng.standard_normal((size, *shape)).astype(np.float32)} for _ in range(batches)]


def outputs(path: Path, data: list[dict[str, Array]]) -> Array:
    """The first output for all batches."""
    session = Session(path)
    return np.concatenate([next(iter(session.run(feed).values())) for feed in data])


def outputs_of(pairing: Pairing, folder: Path, data: list[dict[str, Array]]) -> Array:
    """The first output of the pruned model."""
    save(pairing.pruned.model, folder / "pruned.onnx")
    return outputs(folder / "pruned.onnx", data)


def error(found: Array, due: Array) -> float:
    """Mean squared error, relative to the variance of what is due."""
    return float(np.mean((found - due) ** 2) / np.var(due))
