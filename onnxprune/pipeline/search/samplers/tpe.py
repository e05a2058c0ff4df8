"""Tree-structured Parzen estimators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxprune.pipeline.search.samplers.base import sampler

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

_AT_RANDOM = 10


@sampler("tpe")
def tpe(seed: int, trials: int) -> BaseSampler:  # noqa: ARG001
    """Densities of good and of other trials (Bergstra et al. 2011; Ozaki et al. 2022 for several objectives)."""
    from optuna.samplers import TPESampler

    return TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=_AT_RANDOM)
