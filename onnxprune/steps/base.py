"""The base of every step: the state that it changes, the context that it may use, and how it is registered.

A compression is a list of steps (see `pipeline.recipe`). A step is a frozen dataclass whose fields are its options, and
a function from a state to the next one:

    state = Prune(ratio=0.5)(state, context)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from onnxprune.evaluation.options import MEASURING, RUNNING, MeasureOptions
from onnxprune.runtime.providers import CPU_ONLY, choose_providers
from onnxprune.support.memory import DEFAULT
from onnxprune.support.options import changed, check_options, option
from onnxprune.support.progress import Progress, parts, silent
from onnxprune.support.registry import Registry

if TYPE_CHECKING:  # the command line reads the options of steps, and has no use for what they work on
    from onnxprune.data.base import Data
    from onnxprune.data.split import Split
    from onnxprune.runtime.latency import Setting
    from onnxprune.steps.state import State


@dataclass(frozen=True)
class Loop:
    """A round of a loop: its number, of how many, and how the loop spreads a cut over its rounds."""

    number: int = 1
    rounds: int = 1
    schedule: str = "cubic"

    @property
    def done(self) -> float:
        """How far the loop has come at the end of the round, in (0, 1]."""
        return self.number / self.rounds

    @property
    def before(self) -> float:
        """How far it had come before the round."""
        return (self.number - 1) / self.rounds


@dataclass(frozen=True)
class Context(MeasureOptions):
    """Everything that every step may use: data, devices, seed, and what is called with progress.

    Attributes:
        data: samples that may be fitted to; None where there are none.
        training: samples to train on, where they are others than `data`.
        made_up: made-up inputs in place of them.
        apart: samples that nothing is fitted to, where some were kept apart.
        progress: is called with what is being done.
        scores: remembers the scores of the original's units, where many recipes are tried: called with what they depend
            on and what computes them.
        following: the steps of the recipe that come next, up to its end or that of a loop.
        beyond: the steps behind the loop.
        loop: where in a loop the step is.
    """

    device: str = option("cpu", "Where torch runs, like cuda.", section=RUNNING)
    jobs: int = option(
        1,
        "Processes that measure, for scope sensitivity, and that decode images to train on; or models at once.",
        low=1,
        recorded=False,
        section=RUNNING,
    )
    cache: Path | None = option(
        None,
        "Folder for what was measured; ~/.cache/onnxprune by default.",
        metavar="FOLDER",
        recorded=False,
        section=RUNNING,
    )
    resume: Path | None = option(
        None,
        "Folder for checkpoints of trainings; the same command goes on from what is there, as if never interrupted.",
        metavar="FOLDER",
        recorded=False,
        section=RUNNING,
    )
    save_every: float = option(
        5.0,
        "Minutes between two checkpoints.",
        low=0,
        unit="minutes",
        recorded=False,
        metavar="MINUTES",
        section=RUNNING,
    )
    loss: str = option(
        "auto",
        "What gradients are of, and what is trained for on labels, see: onnxprune list losses; or module:function.",
        metavar="NAME",
        section=MEASURING,
    )
    memory: str = option(
        DEFAULT,
        "Bound for what samples take beyond the model: values, statistics of layers, inputs that are held.",
        metavar="SIZE",
        section=RUNNING,
    )
    carry: tuple[str, ...] = option(
        (),
        "The samples are a sequence: this input takes what that output gave in the call before, like h=hn.",
        metavar="INPUT=OUTPUT",
        section=RUNNING,
    )
    resize_states: tuple[str, ...] = option(
        (),
        "Let units of this state go, of an input and the output that it comes from, like h=hn: both keep their shapes, "
        "a unit that went is not read on entry and is zero on exit.",
        metavar="INPUT=OUTPUT",
        section=RUNNING,
    )
    unverified: bool = option(
        False,
        "Write also where the original does not run here: the result is then checked without running it.",
        recorded=False,
        section=RUNNING,
    )
    data: Data | None = None
    training: Data | None = None
    made_up: Data | None = None
    apart: Split | None = None
    progress: Progress = silent
    scores: Callable[[str, Callable[[], Any]], Any] | None = None
    following: tuple[Step, ...] = ()
    beyond: tuple[Step, ...] = ()
    loop: Loop = Loop()

    def __post_init__(self) -> None:
        check_options(self)

    @cached_property
    def execution(self) -> tuple[str, ...]:
        """Full names of the execution providers. Raises UsageError for one that ONNX Runtime does not know."""
        return CPU_ONLY if self.providers == ("cpu",) else tuple(choose_providers(self.providers)[0])

    @property
    def setting(self) -> Setting:
        """How latency is measured."""
        from onnxprune.runtime.latency import Setting

        return Setting(self.execution[0], self.latency_batch, self.threads)

    @property
    def samples(self) -> Data | None:
        """The samples to fit to: the data, else made-up inputs."""
        return self.made_up if self.data is None else self.data

    @property
    def measured(self) -> Data | None:
        """The samples that a drop is measured on."""
        return self.apart.measuring if self.apart else self.data


@dataclass(frozen=True)
class Record:
    """The record of a step.

    Attributes:
        step: its name.
        options: those that were not at their defaults.
        numbers: what it found, by name; plain data.
        notes: what a person should know.
    """

    step: str
    options: Mapping[str, Any] = field(default_factory=dict)
    numbers: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Step(ABC):
    """A frozen dataclass whose fields are options, see `support.options.option`; registered with `step`."""

    name: ClassVar[str]
    summary: ClassVar[str]

    @property
    def on_samples(self) -> bool:
        """Does it need samples, so that inputs are to be made up where there are none?"""
        return False

    @property
    def effort(self) -> float:
        """About how long it takes beside other steps, for the bar of progress."""
        return 1.0

    def __post_init__(self) -> None:
        check_options(self)
        self.check()

    def check(self) -> None:  # noqa: B027 (most steps have nothing to check)
        """Raises UsageError for options that do not go together, before any file is opened."""

    @classmethod
    def sample(cls) -> tuple[Step, ...]:
        """Steps for the contract tests, of which the last is one of this kind.

        They run on a perceptron that two of eight units were removed from, with 64 labelled samples.
        """
        return (cls(),)

    def needs(self, context: Context) -> None:  # noqa: B027 (nor to ask for)
        """Raises UsageError where the context lacks something that the step needs, before any work."""

    @abstractmethod
    def __call__(self, state: State, context: Context) -> State:
        """The next state; the given one stays as it is."""

    def record(self, numbers: Mapping[str, Any] | None = None, notes: Iterable[str] = ()) -> Record:
        """A note of the step's work, for the state."""
        return Record(self.name, changed(self), numbers or {}, tuple(notes))


steps: Registry[str, type[Step]] = Registry("step", "onnxprune.steps", "onnxprune.steps", leaf="step")
S = TypeVar("S", bound=type[Step])


def step(name: str) -> Callable[[S], S]:
    """Decorator: make a step known by a name. Raises ValueError when the name is taken."""

    def add(kind: S) -> S:
        kind.name = name
        kind.summary = next(iter((kind.__doc__ or "").strip().splitlines()), "")
        steps.register(name)(kind)
        return kind

    return add


def run_steps(steps: Sequence[Step], state: State, context: Context) -> State:
    """One step after the other; each knows those that follow, and tells its part of the progress."""
    watchers = parts(context.progress, [each.effort for each in steps])
    for at, (each, progress) in enumerate(zip(steps, watchers, strict=True)):
        state = each(state, replace(context, following=tuple(steps[at + 1 :]), progress=progress))
    return state
