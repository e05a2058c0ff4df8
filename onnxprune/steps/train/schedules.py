"""How the learning rate changes over a training: a factor of the highest rate, at a share of the training.

    one-cycle  up along half a cosine during the warm-up, then down along half a cosine to zero
               (Smith and Topin, "Super-convergence", 2018)
    cosine     up linearly during the warm-up, then along a cosine to zero (Loshchilov and Hutter, SGDR, 2017)
    linear     up linearly, then down linearly to zero
    step       up linearly, then divided by ten at each milestone
    constant   up linearly, then the same

A schedule that is rewound (Renda, Frankle and Carbin, 2020) begins where a share of it counts as done; the warm-up
then comes in front of the rest of it, for a file has no momentum to go on with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import cos, pi

from onnxprune.steps.train.options import TrainOptions

_DECADE = 0.1


def _cosine(done: float) -> float:
    return 0.5 * (1 + cos(pi * done))


_SHAPES: dict[str, Callable[[float], float]] = {
    "one-cycle": _cosine,
    "cosine": _cosine,
    "linear": lambda done: 1 - done,
    "constant": lambda _: 1.0,
}


def rate_factor(options: TrainOptions, done: float) -> float:
    """The factor of the highest rate when a share of the training is done: in [0, 1].

    Args:
        options: schedule, warm-up, milestones and how far it is rewound.
        done: in [0, 1]. The first step of n stands at 1 / (n + 1), so that none has a rate of zero.
    """
    rise = _rise(options, done)
    if options.rate_schedule == "step":
        share = options.rate_rewind + (1 - options.rate_rewind) * done
        return rise * _steps(options.milestones, share)
    behind = max(done - options.rate_warmup, 0) / (1 - options.rate_warmup) if options.rate_warmup < 1 else 0.0
    shape = _SHAPES[options.rate_schedule]
    return rise * shape(options.rate_rewind + (1 - options.rate_rewind) * behind)


def _rise(options: TrainOptions, done: float) -> float:
    if done >= options.rate_warmup:
        return 1.0
    share = done / options.rate_warmup
    return 1 - _cosine(share) if options.rate_schedule == "one-cycle" else share


def _steps(milestones: Sequence[float], share: float) -> float:
    return float(_DECADE ** sum(share >= milestone for milestone in milestones))
