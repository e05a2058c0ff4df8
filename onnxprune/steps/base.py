"""With what a cut is scored, recovered and measured: all that a request does not say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx_ir as ir

from onnxprune.steps.recover import methods as recovering
from onnxprune.data.base import Data
from onnxprune.analysis.coupling import Analysis, Group
from onnxprune.steps.prune.criteria.base import Scores
from onnxprune.data.split import Split, split
from onnxprune.analysis.inspect import analyze_model, inspect
from onnxprune.steps.plan import Plan
from onnxprune.support.progress import Progress, silent
from onnxprune.steps.recover.methods import Recovery
from onnxprune.runtime.latency import Setting
from onnxprune.steps.prune.score import score_model
from onnxprune.model.signature import Port

CPU = ("CPUExecutionProvider",)


@dataclass(frozen=True)
class Means:
    """With what a cut is made.

    Attributes:
        data: calibration data.
        method: how to recover, see `recover.METHODS`, or "none".
        seed: of everything random.
        providers: execution providers of ONNX Runtime for the runs on data.
        loss: what gradients are of.
        device: where torch computes those.
        metric: what a target for drop is about, see `metrics.metric`.
        setting: provider, batch and threads that latency is measured with.
        jobs: processes for the measurements of a strategy.
        cache: folder to keep those in (None: nowhere).
        progress: told what is being done.
        apart: what a target for drop is measured on, where that is not `data`.
    """

    data: Data | None = None
    method: str = recovering.NONE
    seed: int = 0
    providers: Sequence[str] = CPU
    loss: str = "auto"
    device: str = "cpu"
    metric: str | None = None
    setting: Setting = field(default_factory=Setting)
    jobs: int = 1
    cache: Path | None = None
    progress: Progress = silent
    apart: Split | None = None

    @property
    def recovers(self) -> bool:
        """Is a cut recovered?"""
        return self.method != recovering.NONE

    @property
    def measured(self) -> Data | None:
        """What a target for drop is measured on."""
        return self.apart.measuring if self.apart else self.data

    def keeping_apart(self, ports: Sequence[Port]) -> Means:
        """The same, with every third sample kept for the measurement where recovery is fitted to the others."""
        if self.data is None or not self.recovers or not recovering.METHODS[self.method].on_data:
            return self
        apart = split(self.data, ports)
        return replace(self, data=apart.fitting, apart=apart)

    def scores(self, analysis: Analysis, groups: Sequence[Group], criterion: str) -> dict[str, Scores]:
        """See `scoring.score_model`."""
        return score_model(
            analysis,
            groups,
            criterion,
            self.data,
            seed=self.seed,
            providers=self.providers,
            loss=self.loss,
            device=self.device,
            progress=self.progress,
        )

    def mend(self, path: Path, plan: Plan, model: ir.Model) -> Recovery:
        """Recover what a plan leaves of a file's model, in place; `model` is that."""
        if not self.recovers or not plan.removed_units:
            return Recovery()
        original, pruned = inspect(path), analyze_model(model)
        return recovering.recover(
            original,
            pruned,
            plan.keep(original),
            self.method,
            self.data,
            seed=self.seed,
            providers=self.providers,
            progress=self.progress,
        )
