"""A genetic algorithm on several objectives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxprune.pipeline.search.samplers.base import sampler

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


@sampler("nsga2")
def nsga2(seed: int, trials: int) -> BaseSampler:
    """Generations of crossover and mutation, selected by rank and crowding (NSGA-II, Deb et al. 2002)."""
    from optuna.samplers import NSGAIISampler

    # Some eight generations of the budget, in populations no larger than its authors'.
    return NSGAIISampler(population_size=min(50, max(8, trials // 8)), seed=seed)
