"""Optimizers by name, which weights decay, rates per layer, and a moving average of the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from onnxprune.errors import UsageError
from onnxprune.ops.learned import RECURRENT, WEIGHT
from onnxprune.steps.train.options import TrainOptions
from onnxprune.steps.train.parallel import sharded_optimizer
from onnxprune.support.messages import did_you_mean, one_line

# Highest rate and decay where nobody says otherwise, measured in benchmarks/train.py; the second rate is that of
# networks which normalizations were put into.
DEFAULTS: Mapping[str, tuple[float, float, float]] = {"adamw": (1e-3, 3e-3, 0.01), "sgd": (0.01, 0.02, 5e-4)}
_OTHERS = (1e-3, 1e-3, 0.0)
# The first rate of networks whose weights are rounded, which are near their best already and have no normalizations: at
# 2e-4 ResNet-20 with 3 bits got worse, at 1e-3 it diverged.
ROUNDED: Mapping[str, float] = {"adamw": 1e-4, "sgd": 1e-3}
_DECAYING = (WEIGHT, RECURRENT)
# A moving average follows the weights closely while it is young: it then averages over a tenth of the steps so far.
_YOUNG = 10


def optimizer_defaults(options: TrainOptions, *, normalized: bool, rounded: bool = False) -> tuple[float, float]:
    """Highest rate and decay of weights; `rounded`: the file has them as integers."""
    plain, with_norms, decay = DEFAULTS.get(options.optimizer.lower(), _OTHERS)
    rate = with_norms if normalized else plain
    if rounded:
        rate = min(rate, ROUNDED.get(options.optimizer.lower(), rate))
    return (
        rate if options.learning_rate is None else options.learning_rate,
        decay if options.weight_decay is None else options.weight_decay,
    )


def rate_factors(options: TrainOptions, names: Sequence[str]) -> dict[str, float]:
    """By how much the rate of each weight differs; of several patterns that fit, the last one counts.

    Raises UsageError for a pattern that fits no weight.
    """
    found = dict.fromkeys(names, 1.0)
    for pattern, size in options.rates:
        fitting = [name for name in names if fnmatchcase(name, pattern)]
        if not fitting:
            raise UsageError(f"rates: no trained weight is called '{pattern}'{did_you_mean(pattern, names)}")
        found.update(dict.fromkeys(fitting, size))
    return found


def make_optimizer(
    options: TrainOptions,
    weights: Mapping[str, torch.nn.Parameter],
    roles: Mapping[str, str],
    *,
    normalized: bool = False,
    processes: int = 1,
    rates: Mapping[str, float] | None = None,
) -> torch.optim.Optimizer:
    """The optimizer over these weights. Every group has a `factor` that its rate is multiplied with.

    Args:
        options: its name, rate, momentum and decay.
        weights: by name.
        roles: of the weights, see `ops.learned`; only matrices and kernels decay.
        normalized: normalizations were put into the network.
        processes: how many train together.
        rates: factors on the rates of some of the weights, by name.

    Raises UsageError for a name that torch.optim does not have, or an optimizer that refuses these options.
    """
    rate, decay = optimizer_defaults(options, normalized=normalized)
    factors = rate_factors(options, list(weights))
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, weight in weights.items():
        factor = factors[name] * (rates or {}).get(name, 1.0)
        own = decay if roles.get(name) in _DECAYING else 0.0
        group = groups.setdefault((factor, own), {"params": [], "weight_decay": own, "factor": factor})
        group["params"].append(weight)
    kind, given = _kind(options)
    sharded = options.shard == "optimizer" and processes > 1
    try:
        if sharded:
            return sharded_optimizer(kind, list(groups.values()), lr=rate, **given)
        made: torch.optim.Optimizer = kind(list(groups.values()), lr=rate, **given)
        return made
    except (TypeError, ValueError) as error:
        raise UsageError(f"optimizer {options.optimizer} refuses these options: {one_line(error)}") from error


def _kind(options: TrainOptions) -> tuple[Any, dict[str, Any]]:
    """The class of the optimizer, and what it is given beside rate and decay."""
    name = options.optimizer.lower()
    if name == "adamw":
        return torch.optim.AdamW, {"betas": (options.momentum, 0.999)}
    if name == "sgd":
        return torch.optim.SGD, {"momentum": options.momentum, "nesterov": options.momentum > 0}
    known = {
        key.lower(): kind
        for key, kind in vars(torch.optim).items()
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
    }
    if name not in known:
        raise UsageError(f"unknown optimizer '{options.optimizer}'{did_you_mean(name, known)}")
    return known[name], {}


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate of the next step, for each group times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


class MovingAverage:
    """An exponential moving average of weights (Polyak and Juditsky, 1992), young ones following closely.

    Args:
        weights: by name; the average starts from them.
        decay: share of the average that stays at each step.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        self._decay = decay
        self.steps = 0
        self.values = {name: weight.detach().clone() for name, weight in weights.items()}

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor]) -> None:
        """After a step."""
        self.steps += 1
        decay = min(self._decay, self.steps / (self.steps + _YOUNG))
        for name, value in self.values.items():
            value.lerp_(weights[name].detach(), 1 - decay)
