"""Training methods: what may take part in a training beside the loss, and where it may take part.

A method is a frozen dataclass whose fields are its options; `start` gives its `Effect` on one training. A file in
`methods/` or `penalties/` registers itself. On the command line and in recipes a method is a text: its name, the
value of its first option, then others by name, like `group-lasso:1e-3` or `dropout:0.5,level=weight`.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from onnxprune.errors import MissingExtraError, UsageError
from onnxprune.support.options import check_options, find_option, options_of, plain
from onnxprune.support.registry import Registry

try:
    import torch
    from torch import Tensor
except ImportError:
    raise MissingExtraError("torch", "torch") from None

if TYPE_CHECKING:
    from onnxprune.analysis.groups import Analysis
    from onnxprune.steps.train.normalization import Inserted
    from onnxprune.steps.train.units import UnitGroup


@dataclass(frozen=True)
class Moment:
    """When in a training something happens.

    Attributes:
        share: how much of the training was done before the update, in [0, 1]; 1 when it has ended.
        rate: the learning rate of the update.
        step: how many updates were made before it.
    """

    share: float = 0.0
    rate: float = 0.0
    step: int = 0


@dataclass(frozen=True)
class Scene:
    """The view of a method when a training begins.

    Attributes:
        weights: every float weight of the network in training by name; they change from update to update.
        roles: of those that are trained, see `ops.learned`.
        analysis: of the model that is trained.
        inserted: normalizations that were put in for the length of the training.
        samples: how many samples are trained on in an epoch.
        seed: of everything random that does not change from update to update.
        zeros: per weight, which entries may be other than zero already: bool, of its shape.
    """

    weights: Mapping[str, torch.nn.Parameter]
    roles: Mapping[str, str]
    analysis: Analysis
    inserted: Sequence[Inserted] = ()
    samples: int = 1
    seed: int = 0
    zeros: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)

    @cached_property
    def groups(self) -> list[UnitGroup]:
        """The groups of units that weights of this training belong to, in topological order."""
        from onnxprune.steps.train.units import unit_groups

        return unit_groups(self.analysis, self.weights, self.roles, self.inserted)

    @property
    def gateable(self) -> list[UnitGroup]:
        """The groups whose units a gate can switch off exactly."""
        return [group for group in self.groups if group.readers]

    @cached_property
    def kernels(self) -> dict[str, int]:
        """The axis of the filters of every kernel of a convolution; others are matrices in their last two axes."""
        from onnxprune.ops.learned import out_axis
        from onnxprune.ops.traits import convolves
        from onnxprune.steps.train.parameters import trainable

        slots = trainable(self.analysis.model).items()
        return {name: out_axis(slot.node, slot.slot) for name, slot in slots if convolves(slot.node)}

    @property
    def matrices(self) -> dict[str, torch.nn.Parameter]:
        """The trained weights that activations are multiplied with: no biases, scales and tables."""
        from onnxprune.ops.learned import RECURRENT, WEIGHT

        return {name: self.weights[name] for name, role in self.roles.items() if role in (WEIGHT, RECURRENT)}


class Effect:
    """A method at work in one training. Each hook does nothing unless a method says otherwise.

    Attributes:
        parameters: tensors of its own that the optimizer trains, by name. They are part of every checkpoint.
        buffers: other tensors of its own that are part of every checkpoint; they are changed in place.
        rate: factor on the learning rate of the parameters.
        sparse: names of weights whose exact zeros at the end stay zero in all steps that follow.
    """

    rate: float = 1.0

    def __init__(self) -> None:
        self.parameters: dict[str, torch.nn.Parameter] = {}
        self.buffers: dict[str, Tensor] = {}
        self.sparse: tuple[str, ...] = ()

    def weights(self, weights: Mapping[str, Tensor], moment: Moment, *, training: bool) -> Mapping[str, Tensor]:  # noqa: ARG002
        """The weights that the forward pass uses in place of those that are trained, by name; only those that differ.

        Without `training` they are those of evaluations and of the file: nothing random, zeros where zeros are due.
        """
        return {}

    def term(self, weights: Mapping[str, Tensor], moment: Moment) -> Tensor | None:  # noqa: ARG002
        """The addition to the loss of an update: a scalar. `weights` are those that are trained."""
        return None

    def before_step(self, weights: Mapping[str, Tensor], moment: Moment) -> None:
        """Before the optimizer's step: the gradients of all parts of the batch are in `grad`."""

    def after_step(self, weights: Mapping[str, Tensor], moment: Moment) -> None:
        """After the optimizer's step: weights may be changed in place. The gradients are there still."""

    def finish(self, weights: Mapping[str, Tensor], moment: Moment) -> None:
        """Behind the last update, before the last evaluation: weights may be changed in place. Twice is as once."""

    def scores(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Per group id what was learned of its units for the criterion `learned`: shape [units], higher is better."""
        return {}

    def notes(self, weights: Mapping[str, Tensor]) -> Iterator[str]:  # noqa: ARG002
        """What a person should know at the end; `weights` are those of the file."""
        yield from ()


class TrainingMethod(ABC):
    """A frozen dataclass whose fields are options, see `support.options.option`; registered with `training_method`."""

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check_options(self)

    @abstractmethod
    def start(self, scene: Scene) -> Effect:
        """Its effect on a training. Raises UsageError where the network has nothing that it can work on."""

    def __str__(self) -> str:
        given = (f"{name}={plain(each, getattr(self, name))}" for name, each in options_of(type(self)).items())
        return f"{self.name}:{','.join(given)}"


M = TypeVar("M", bound=type[TrainingMethod])
TRAINING_METHODS: Registry[str, type[TrainingMethod]] = Registry(
    "training method", f"{__package__}.methods", "onnxprune.training_methods"
)
PENALTIES: Registry[str, type[TrainingMethod]] = Registry("penalty", f"{__package__}.penalties", "onnxprune.penalties")


def training_method(name: str, *, source: str = "") -> Callable[[M], M]:
    """Decorator: make a method known by a name to `--training-method`. Raises ValueError when the name is taken."""
    return _known_as(TRAINING_METHODS, name, source)


def penalty(name: str, *, source: str = "") -> Callable[[M], M]:
    """Decorator: make a method known by a name to `--penalty`. Raises ValueError when the name is taken."""
    return _known_as(PENALTIES, name, source)


def _known_as(registry: Registry[str, type[TrainingMethod]], name: str, source: str) -> Callable[[M], M]:
    def add(kind: M) -> M:
        kind.name, kind.source = name, source
        kind.summary = next(iter((kind.__doc__ or "").strip().splitlines()), "")
        registry.register(name)(kind)
        return kind

    return add


def chosen_methods(methods: Sequence[str], penalties: Sequence[str]) -> list[TrainingMethod]:
    """The methods that were asked for, in that order.

    Raises UsageError for a name that there is not, and for options that a method does not have.
    """
    return [_read(TRAINING_METHODS, text) for text in methods] + [_read(PENALTIES, text) for text in penalties]


def _read(registry: Registry[str, type[TrainingMethod]], text: str) -> TrainingMethod:
    name, _, given = text.partition(":")
    kind = registry[name.strip()]
    options = list(options_of(kind))
    values: dict[str, Any] = {}
    for at, entry in enumerate(filter(None, map(str.strip, given.split(",")))):
        key, equals, value = entry.rpartition("=")
        if not equals and (at or not options):
            raise UsageError(f"{registry.family} '{text}': '{entry}' has to be NAME=VALUE, with one of {options}")
        found = find_option(kind, key.strip()) if equals else options_of(kind)[options[0]]
        values[found.name] = _value(found.single, value.strip(), text)
    return kind(**values)


def _value(kind: type, value: str, text: str) -> Any:
    if kind is bool and value in ("true", "false"):
        return value == "true"
    try:
        return kind(value) if kind in (int, float) else value
    except ValueError:
        raise UsageError(f"'{text}': {value} is not a number") from None
