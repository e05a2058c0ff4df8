"""Where a training is, and how it survives an interruption."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import cached_property
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from onnxprune.steps.train.checkpoint import (
    check_checkpoint_target,
    check_same,
    digest_of_model,
    digest_of_samples,
    optimizer_tensors,
    part,
    read_checkpoint,
    restore_optimizer,
    write_checkpoint,
)
from onnxprune.steps.train.distil import Teacher
from onnxprune.steps.train.evaluate import Evaluated
from onnxprune.steps.train.network import Network, Snapshot
from onnxprune.steps.train.optim import MovingAverage
from onnxprune.steps.train.setup import Setup

_NOTHING = Evaluated(0, float("nan"))


@dataclass
class TrainingPlace:
    """How far a training is.

    Attributes:
        step: updates that were made.
        epoch, within: the epoch, and how many of its updates were made.
        samples: that were trained on, counted each time.
        seconds: that it took before the last interruption.
        slower: what the rate is multiplied with after collapses.
        retries: how many collapses there were.
        back_at: the step of the last one.
        waited: evaluations since the best one.
        evaluated_at: the share of the training that was done at the last evaluation.
        stopped: it ends before its time.
        start, best: how it did before, and at best.
        history: every evaluation.
        losses: step, rate and loss of every update.
        notes: what a person should know.
    """

    step: int = 0
    epoch: int = 0
    within: int = 0
    samples: int = 0
    seconds: float = 0.0
    slower: float = 1.0
    retries: int = 0
    back_at: int = 0
    waited: int = 0
    evaluated_at: float = 0.0
    stopped: bool = False
    start: Evaluated = _NOTHING
    best: Evaluated = _NOTHING
    history: list[Evaluated] = field(default_factory=list)
    losses: list[tuple[int, float, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> TrainingPlace:
        """What `to_json` gave."""
        plain = {each.name: data[each.name] for each in fields(TrainingPlace)}
        for name in ("start", "best"):
            plain[name] = Evaluated(**data[name])
        plain["history"] = [Evaluated(**each) for each in data["history"]]
        plain["losses"] = [(step, rate, loss) for step, rate, loss in data["losses"]]
        return TrainingPlace(**plain)


class TrainingCheckpoint:
    """The checkpoint of a training, and what it belongs to.

    Args:
        setup: the training.
        model, teacher: the models that it started from.
    """

    def __init__(self, setup: Setup, model: ir.Model, teacher: Teacher | None) -> None:
        self._setup, self._model, self._teacher = setup, model, teacher
        self._path = setup.running.checkpoint
        if self._path is not None:
            check_checkpoint_target(self._path)

    @cached_property
    def _belongs(self) -> dict[str, Any]:
        """The facts that a checkpoint is compared by."""
        samples = self._setup.samples
        return {
            "model": digest_of_model(self._model),
            "teacher": digest_of_model(None if self._teacher is None else self._teacher.model),
            "data": digest_of_samples(samples.source, samples.count, samples.first(1)[0].batch),
            "seed": self._setup.running.seed,
            "processes": self._setup.among.count,
            "loss": self._setup.running.loss,
            "metric": self._setup.running.metric,
            "options": _plain(self._setup.options),
        }

    def save(
        self,
        place: TrainingPlace,
        network: Network,
        optimizer: torch.optim.Optimizer,
        average: MovingAverage | None,
        best: Snapshot,
    ) -> None:
        """Write everything that a training needs to go on. In several processes all have to call it."""
        if self._path is None:
            return
        states, numbers = optimizer_tensors(optimizer, writes=self._setup.among.writes)
        if not self._setup.among.writes:
            return
        tensors: dict[str, Tensor] = {f"weights/{name}": tensor for name, tensor in network.tensors()}
        tensors.update({f"best/{name}": tensor for name, tensor in best.items()})
        tensors.update({f"average/{name}": tensor for name, tensor in (average.values if average else {}).items()})
        facts = {
            **self._belongs,
            "place": place.to_json(),
            "numbers": numbers,
            "average_steps": average.steps if average else 0,
            "inserted": [asdict(norm) for norm in network.inserted],
            "fixed": [norm.bias for norm in network.inserted],
        }
        fixed = {f"weights/{norm.bias}": network.module.weights[norm.bias] for norm in network.inserted}
        write_checkpoint(self._path, {**tensors, **fixed, **states}, facts)

    def load(
        self, network: Network, optimizer: torch.optim.Optimizer, average: MovingAverage | None
    ) -> tuple[TrainingPlace, Snapshot] | None:
        """Put a checkpoint into a network and an optimizer; None where there is none yet.

        Raises UsageError for a checkpoint of another training, ModelError for a damaged one.
        """
        if self._path is None or not self._path.exists():
            return None
        tensors, facts = read_checkpoint(self._path)
        check_same(self._path, facts, self._belongs)
        network.restore(part(tensors, "weights"))
        restore_optimizer(optimizer, tensors, facts["numbers"])
        if average is not None:
            average.values.update(part(tensors, "average"))
            average.steps = facts["average_steps"]
        device = network.module.device
        best = {name: tensor.to(device) for name, tensor in part(tensors, "best").items()}
        return TrainingPlace.from_json(facts["place"]), best


def _plain(options: Any) -> dict[str, Any]:
    """Options as JSON gives them back."""
    assert is_dataclass(options)
    return {name: _listed(value) for name, value in asdict(options).items()}  # type: ignore[arg-type]


def _listed(value: Any) -> Any:
    return [_listed(entry) for entry in value] if isinstance(value, tuple | list) else value
