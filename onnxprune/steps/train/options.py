"""What can be asked of a training: every field with its help, unit and range beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from onnxprune.errors import UsageError
from onnxprune.support.messages import did_you_mean

AUTO, NONE = "auto", "none"
SCHEDULES = ("one-cycle", "cosine", "linear", "step", "constant")
PRECISIONS = (AUTO, "float32", "bfloat16", "float16")
LAYOUTS = (AUTO, "channels-first", "channels-last")
NORMALIZATIONS = (AUTO, NONE, "batch")
STATISTICS = ("batch", "frozen")
KEEPS = ("best", "last")
DISTANCES = (AUTO, "kl", "mse")
SHARDS = (NONE, "optimizer")


def _option(
    default: Any,
    text: str,
    *,
    unit: str = "",
    range: tuple[float | None, float | None] | None = None,  # noqa: A002  (the word that readers of the fields look for)
    choices: tuple[str, ...] = (),
) -> Any:
    """A field with what the command line, the files and the search space are made from.

    Args:
        default: its value where nothing is said.
        text: one sentence for people.
        unit: of the number.
        range: lowest and highest value allowed, None for no limit.
        choices: all values allowed.
    """
    return field(default=default, metadata={"help": text, "unit": unit, "range": range, "choices": choices})


@dataclass(frozen=True)
class TrainOptions:
    """How a model is trained. A field says all about itself in its metadata: `help`, `unit`, `range`, `choices`."""

    # -- how long
    epochs: float = _option(1.0, "passes over the training samples", unit="epochs", range=(0, None))
    steps: int | None = _option(None, "updates of the weights, in place of epochs", unit="steps", range=(0, None))
    minutes: float | None = _option(None, "time that the training may take at most", unit="minutes", range=(0, None))
    batch: int = _option(128, "samples per update", unit="samples", range=(1, None))
    accumulate: int = _option(1, "parts that a batch is computed in, for less memory", range=(1, None))

    # -- the optimizer and its rate
    optimizer: str = _option("adamw", "adamw, sgd (with Nesterov momentum), or the name of a class in torch.optim")
    learning_rate: float | None = _option(
        None, "highest learning rate; by default the one that was measured best for the optimizer", range=(0, None)
    )
    momentum: float = _option(0.9, "momentum of sgd, and the first beta of adamw", range=(0, 1))
    weight_decay: float | None = _option(
        None,
        "decay of matrices and kernels, not of biases and norms; by default what fits the optimizer",
        range=(0, None),
    )
    schedule: str = _option("one-cycle", "how the learning rate changes over the training", choices=SCHEDULES)
    warmup: float = _option(0.1, "share of the training in which the rate rises from zero", range=(0, 1))
    milestones: tuple[float, ...] = _option(
        (0.5, 0.75), "shares of the training at which the schedule 'step' divides the rate by ten", range=(0, 1)
    )
    rewind: float = _option(
        0.0, "share of the schedule that counts as done already: learning-rate rewinding", range=(0, 1)
    )
    rates: tuple[tuple[str, float], ...] = _option(
        (), "patterns of weights and factors on their learning rate, like head.*=10; a factor of 0 freezes them"
    )
    clip: float | None = _option(None, "norm that gradients are scaled down to where it is larger", range=(0, None))
    ema: float = _option(0.0, "decay per step of a moving average of the weights, 0 for none", range=(0, 1))

    # -- the loss
    loss: str = _option(AUTO, "loss on labels: auto, cross-entropy, mse, none, or module:function")
    smoothing: float = _option(0.0, "share of the labels' weight that is spread over all classes", range=(0, 1))
    distil: float | None = _option(
        None,
        "weight of the original's outputs beside the labels; by default 1 without labels, 0.5 with them",
        range=(0, 1),
    )
    temperature: float = _option(4.0, "temperature that distilled class outputs are softened with", range=(0, None))
    distance: tuple[str, ...] = _option(
        (AUTO,), "how outputs are compared with the original's: auto, kl or mse, or output=kl for one of them"
    )
    features: float = _option(
        0.0, "weight of inner values beside the original's, normalized per unit; 0 for none", range=(0, None)
    )
    feature_values: tuple[str, ...] = _option(
        (), "names of these values; by default residual streams and block outputs"
    )

    # -- the samples
    augment: tuple[str, ...] = _option(
        (AUTO,),
        "what is varied: auto, none, crop[=pixels], flip, mixup[=alpha], colour[=strength], time-mask[=share], "
        "frequency-mask[=share]",
    )
    holdout: float = _option(
        0.1, "share of the samples that is kept apart to evaluate on, where no others are given", range=(0, 0.5)
    )
    memory: float = _option(
        2.0, "samples are kept in this much memory; more are read again in every epoch", unit="GB", range=(0, None)
    )

    # -- evaluation
    metric: str | None = _option(None, "what is reported and compared, a metric's name or module:function")
    evaluations: int = _option(5, "how often is evaluated, spread over the training", range=(1, None))
    keep: str = _option("best", "which weights are kept", choices=KEEPS)
    patience: int | None = _option(None, "evaluations without a better one after which it stops", range=(1, None))
    retries: int = _option(3, "how often is started again at a lower rate after a collapse", range=(0, None))

    # -- the network
    normalization: str = _option(
        AUTO,
        "batch puts normalizations behind convolutions while training, and folds them away",
        choices=NORMALIZATIONS,
    )
    statistics: str = _option(
        "batch", "BatchNormalization uses statistics of the batch, or frozen ones", choices=STATISTICS
    )
    precision: str = _option(
        AUTO, "type that is computed in; auto is bfloat16 on a GPU that has it", choices=PRECISIONS
    )
    layout: str = _option(AUTO, "memory layout of images; auto is channels-last on a GPU", choices=LAYOUTS)
    compile: bool = _option(False, "compile the model with torch.compile")
    shard: str = _option(NONE, "several processes: spread the optimizer's state over them", choices=SHARDS)

    def check(self) -> None:
        """Raises UsageError for a value outside its range or choices."""
        for each in fields(self):
            value, facts = getattr(self, each.name), each.metadata
            for entry in value if isinstance(value, tuple) else (value,):
                _check(each.name.replace("_", "-"), entry, facts)
        if self.temperature == 0:
            raise UsageError("temperature must be above 0; 1 leaves the outputs as they are")


def _check(name: str, value: Any, facts: Mapping[str, Any]) -> None:
    choices, limits = facts["choices"], facts["range"]
    if choices and value not in choices:
        raise UsageError(f"{name} takes {', '.join(choices)}, not '{value}'{did_you_mean(str(value), choices)}")
    if limits is None or value is None:
        return
    low, high = limits
    if not (low is None or value >= low) or not (high is None or value <= high):
        allowed = f"at least {low:g}" if high is None else f"between {low:g} and {high:g}"
        raise UsageError(f"{name} must be {allowed}, not {value:g}")
