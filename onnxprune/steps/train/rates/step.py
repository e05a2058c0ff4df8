"""Down by steps."""

from __future__ import annotations

from onnxprune.steps.train.options import TrainOptions
from onnxprune.steps.train.rate import rate_schedule, rewound, risen

_DECADE = 0.1


@rate_schedule("step")
def step_rate(options: TrainOptions, done: float) -> float:
    """Up linearly during the warm-up, then divided by ten at each milestone of the whole training."""
    share = rewound(options, done)
    return risen(options, done) * float(_DECADE ** sum(share >= milestone for milestone in options.milestones))
