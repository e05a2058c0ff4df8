"""The options of a training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxprune.errors import UsageError
from onnxprune.support.options import check_options, option

if TYPE_CHECKING:
    from onnxprune.steps.train.method import TrainingMethod

AUTO, NONE = "auto", "none"
PRECISIONS = (AUTO, "float32", "bfloat16", "float16")
LAYOUTS = (AUTO, "channels-first", "channels-last")
NORMALIZATIONS = (AUTO, NONE, "batch")
STATISTICS = ("batch", "frozen")
KEEPS = ("best", "last")
DISTANCES = (AUTO, "kl", "mse")
SHARDS = (NONE, "optimizer")
AUGMENTATIONS = (AUTO, NONE, "crop", "flip", "mixup", "colour", "time-mask", "frequency-mask")
_LENGTH, _OPTIMIZER, _LOSS, _METHODS = "How long", "Optimizer", "Loss", "Training methods"
_SAMPLES, _EVALUATION, _NETWORK = "Training samples", "Evaluation", "Computing"


def _rate_schedules() -> list[str]:
    from onnxprune.steps.train.rate import RATE_SCHEDULES

    return list(RATE_SCHEDULES)


def _training_methods() -> list[str]:
    from onnxprune.steps.train.method import TRAINING_METHODS

    return list(TRAINING_METHODS)


def _penalties() -> list[str]:
    from onnxprune.steps.train.method import PENALTIES

    return list(PENALTIES)


@dataclass(frozen=True)
class TrainOptions:
    """How a model is trained."""

    epochs: float = option(
        1.0,
        "Train, for so many passes over the samples.",
        low=0,
        unit="epochs",
        flag="train",
        metavar="EPOCHS",
        search=(0, 10),
    )
    learning_rate: float | None = option(
        None, "Highest learning rate; by default the one that was measured best for the optimizer.", low=0
    )
    batch_size: int = option(128, "Samples per update of the weights.", low=1, unit="samples")

    updates: int | None = option(
        None, "Updates of the weights, in place of epochs.", low=0, metavar="N", section=_LENGTH
    )
    minutes: float | None = option(
        None, "Time that the training may take at most; the schedule fits into it.", low=0, section=_LENGTH
    )
    accumulate: int = option(
        1, "Parts that a batch is computed in, for less memory.", low=1, metavar="PARTS", section=_LENGTH
    )

    optimizer: str = option(
        "adamw",
        "adamw, sgd (with Nesterov momentum), or the name of a class in torch.optim.",
        offers=lambda: ("adamw", "sgd"),
        metavar="NAME",
        section=_OPTIMIZER,
    )
    momentum: float = option(
        0.9, "Momentum of sgd, and the first beta of adamw.", low=0, high=1, below=True, section=_OPTIMIZER
    )
    weight_decay: float | None = option(
        None,
        "Decay of matrices and kernels, not of biases and norms; by default what fits the optimizer.",
        low=0,
        section=_OPTIMIZER,
    )
    rate_schedule: str = option(
        "one-cycle",
        "How the learning rate changes, see: onnxprune list rate-schedules.",
        choices=_rate_schedules,
        metavar="NAME",
        section=_OPTIMIZER,
    )
    rate_warmup: float = option(
        0.1, "Share of the training in which the rate rises from zero.", low=0, high=1, section=_OPTIMIZER
    )
    milestones: tuple[float, ...] = option(
        (0.5, 0.75),
        "Shares of the training at which the schedule step divides the rate by ten.",
        low=0,
        high=1,
        section=_OPTIMIZER,
    )
    rate_rewind: float = option(
        0.0,
        "Share of the schedule that counts as done already: learning-rate rewinding.",
        low=0,
        high=1,
        section=_OPTIMIZER,
    )
    rates: tuple[tuple[str, float], ...] = option(
        (),
        "Patterns of weights and factors on their rate, like head.*=10; 0 freezes them.",
        low=0,
        metavar="PATTERN=FACTOR",
        section=_OPTIMIZER,
    )
    clip: float | None = option(
        None, "Norm that gradients are scaled down to where it is larger.", low=0, section=_OPTIMIZER
    )
    ema: float = option(
        0.0, "Decay per update of a moving average of the weights; 0: none.", low=0, high=1, section=_OPTIMIZER
    )

    smoothing: float = option(
        0.0, "Share of the labels' weight that is spread over all classes.", low=0, high=1, section=_LOSS
    )
    distil: float | None = option(
        None,
        "Weight of the original's outputs beside the labels; by default 1 without labels, 0.5 with them.",
        low=0,
        high=1,
        section=_LOSS,
    )
    temperature: float = option(
        4.0, "Temperature that distilled class outputs are softened with.", low=0, section=_LOSS
    )
    distance: tuple[str, ...] = option(
        (AUTO,),
        "How outputs are compared with the original's: auto, kl or mse, or output=kl for one of them.",
        metavar="NAME",
        section=_LOSS,
    )
    features: float = option(
        0.0, "Weight of inner values beside the original's, normalized per unit; 0: none.", low=0, section=_LOSS
    )
    feature_values: tuple[str, ...] = option(
        (),
        "Names of these values; by default residual streams and block outputs.",
        metavar="NAME",
        section=_LOSS,
    )

    training_method: tuple[str, ...] = option(
        (),
        "Training methods that take part, see: onnxprune list methods; each with its options, like "
        "dropout:0.5,level=weight.",
        offers=_training_methods,
        metavar="NAME[:VALUE]",
        section=_METHODS,
    )
    penalty: tuple[str, ...] = option(
        (),
        "What is kept small while training, with its strength, like l1:1e-4, see: onnxprune list penalties.",
        offers=_penalties,
        metavar="NAME[:STRENGTH]",
        section=_METHODS,
    )

    augment: tuple[str, ...] = option(
        (AUTO,),
        "What is varied: auto, none, crop[=pixels], flip, mixup[=alpha], colour[=strength], time-mask[=share], "
        "frequency-mask[=share].",
        offers=lambda: AUGMENTATIONS,
        metavar="NAME",
        section=_SAMPLES,
    )
    holdout: float = option(
        0.1,
        "Share of the samples that is kept apart to evaluate on, where no others are given.",
        low=0,
        high=0.5,
        section=_SAMPLES,
    )

    evaluations: int = option(
        5, "How often is evaluated, spread over the training.", low=1, metavar="N", section=_EVALUATION
    )
    keep: str = option(
        "best", "Which weights are kept: best or last.", choices=lambda: KEEPS, metavar="WHICH", section=_EVALUATION
    )
    patience: int | None = option(
        None, "Evaluations without a better one after which it stops.", low=1, metavar="N", section=_EVALUATION
    )
    retries: int = option(
        3, "How often it starts again at a lower rate after a collapse.", low=0, metavar="N", section=_EVALUATION
    )

    normalization: str = option(
        AUTO,
        "batch puts normalizations behind convolutions while training, and folds them away; or none.",
        choices=lambda: NORMALIZATIONS,
        metavar="NAME",
        section=_NETWORK,
    )
    statistics: str = option(
        "batch",
        "BatchNormalization uses statistics of the batch, or frozen ones.",
        choices=lambda: STATISTICS,
        metavar="WHICH",
        section=_NETWORK,
    )
    precision: str = option(
        AUTO,
        "Type that is computed in: float32, bfloat16 or float16; auto is bfloat16 on a GPU that has it.",
        choices=lambda: PRECISIONS,
        metavar="TYPE",
        section=_NETWORK,
    )
    memory_layout: str = option(
        AUTO,
        "Order of images in memory: channels-first or channels-last; auto is channels-last.",
        choices=lambda: LAYOUTS,
        metavar="ORDER",
        section=_NETWORK,
    )
    scales: bool = option(
        False, "Of a quantized model, learn the scales of weights and activations, too.", section=_NETWORK
    )
    compile: bool = option(False, "Compile the model with torch.compile.", section=_NETWORK)
    shard: str = option(
        NONE,
        "In several processes, spread the optimizer's state over them: optimizer; or none.",
        choices=lambda: SHARDS,
        metavar="WHAT",
        section=_NETWORK,
    )

    def __post_init__(self) -> None:
        check_options(self)
        self.check()

    def check(self) -> None:
        """Raises UsageError for options that do not go together."""
        if self.temperature == 0:
            raise UsageError("temperature must be above 0; 1 leaves the outputs as they are")
        if self.feature_values and not self.features:
            raise UsageError("feature-values names values that are compared where features is above 0; add features")
        self.chosen()

    def chosen(self) -> list[TrainingMethod]:
        """The methods and penalties that take part. Raises UsageError for one that there is not."""
        if not self.training_method and not self.penalty:
            return []  # the command line asks this before it has a use for torch
        from onnxprune.steps.train.method import chosen_methods

        return chosen_methods(self.training_method, self.penalty)
