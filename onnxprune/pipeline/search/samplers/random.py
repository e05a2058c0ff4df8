"""Chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxprune.pipeline.search.samplers.base import sampler

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


@sampler("random")
def at_random(seed: int, trials: int) -> BaseSampler:  # noqa: ARG001
    """Every value as likely as any other: what the others have to beat."""
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)
