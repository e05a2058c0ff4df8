"""Gaussian processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxprune.pipeline.search.samplers.base import sampler

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


@sampler("gp")
def gp(seed: int, trials: int) -> BaseSampler:  # noqa: ARG001
    """Gaussian processes and expected hypervolume: fewest trials, most time between them; needs torch."""
    from optuna.samplers import GPSampler

    from onnxprune.support.extras import check_torch

    check_torch()
    return GPSampler(seed=seed, n_startup_trials=10)
