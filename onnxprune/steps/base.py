"""What every step may use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from onnxprune.data.base import Data
from onnxprune.data.split import Split
from onnxprune.runtime.latency import Setting
from onnxprune.runtime.providers import CPU_ONLY
from onnxprune.support.progress import Progress, silent

NONE = "none"


@dataclass(frozen=True)
class Context:
    """With what a cut is scored, recovered and measured.

    Attributes:
        data: calibration data.
        method: how to recover, see `recover.methods.METHODS`, or "none".
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
    method: str = NONE
    seed: int = 0
    providers: Sequence[str] = CPU_ONLY
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
        return self.method != NONE

    @property
    def measured(self) -> Data | None:
        """What a target for drop is measured on."""
        return self.apart.measuring if self.apart else self.data
