"""How the learning rate changes over a training: a factor of the highest rate, at a share of the training.

A schedule that is rewound (Renda, Frankle and Carbin, 2020) begins where a share of it counts as done; the warm-up
then comes in front of the rest of it, for a file has no momentum to go on with.
"""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi

from onnxprune.errors import UsageError
from onnxprune.steps.train.options import TrainOptions
from onnxprune.support.registry import Registry

# The factor of the highest rate, by the options and the share of the training that is done.
RateSchedule = Callable[[TrainOptions, float], float]
RATE_SCHEDULES: Registry[str, RateSchedule] = Registry(
    "rate schedule", f"{__package__}.rates", "onnxprune.rate_schedules"
)


def rate_schedule(name: str) -> Callable[[RateSchedule], RateSchedule]:
    """Decorator: make a function known as rate schedule `name`. Raises ValueError when the name is taken."""
    return RATE_SCHEDULES.register(name)


def rate_factor(options: TrainOptions, done: float) -> float:
    """The factor of the highest rate when a share of the training is done: in [0, 1].

    Args:
        options: schedule, warm-up, milestones and how far it is rewound.
        done: in [0, 1]. The first step of n is at 1 / (n + 1), so that none has a rate of zero.

    Raises UsageError for a schedule that there is not.
    """
    if options.rate_schedule not in RATE_SCHEDULES:
        raise UsageError(RATE_SCHEDULES.unknown(options.rate_schedule))
    return RATE_SCHEDULES[options.rate_schedule](options, done)


def half_cosine(done: float) -> float:
    """From 1 down to 0, slow at both ends."""
    return 0.5 * (1 + cos(pi * done))


def risen(options: TrainOptions, done: float) -> float:
    """How far the warm-up has come: linearly from 0 to 1."""
    return 1.0 if done >= options.rate_warmup else done / options.rate_warmup


def rewound(options: TrainOptions, share: float) -> float:
    """Where a schedule is of which a share is done here, on what is rewound."""
    return options.rate_rewind + (1 - options.rate_rewind) * share


def fallen(options: TrainOptions, done: float) -> float:
    """Which share of what comes behind the warm-up is done, what is rewound included."""
    behind = max(done - options.rate_warmup, 0) / (1 - options.rate_warmup) if options.rate_warmup < 1 else 0.0
    return rewound(options, behind)
