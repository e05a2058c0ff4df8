"""Which axis sizes a provider runs fast, measured on a model itself instead of guessed.

Kernels work on blocks of channels, 8 or 16 of them, say; widths between take a slower path. The model is pruned by the
same ratio several times, with its axes rounded up to multiples of 1, 2, 4, ..., and the results are timed side by side.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from onnxprune.analysis import cost
from onnxprune.analysis.inspect import inspect
from onnxprune.errors import UsageError
from onnxprune.evaluation.benchmark.comparison import Comparison, compare
from onnxprune.evaluation.benchmark.suite import BenchmarkRequest, Inputs, sizes_for
from onnxprune.model.file import open_model, save
from onnxprune.model.signature import ports_of
from onnxprune.runtime.latency import Latency, Setting, measure_latency
from onnxprune.runtime.providers import choose_providers, short
from onnxprune.steps.base import Context
from onnxprune.steps.clean import Clean
from onnxprune.steps.prune.step import Prune
from onnxprune.steps.state import State
from onnxprune.support.progress import Counted

MULTIPLES = (1, 2, 4, 8, 16, 32)
# Takes the usual widths (16, 32, 64, ...) to numbers with no factor but 2 in common: 11, 21, 42, ...
RATIO = 0.35


@dataclass(frozen=True)
class Rounding:
    """The model with its axes rounded up to multiples of `round_to`; `comparison` is with that of 1."""

    round_to: int
    parameters: int
    latency: Latency
    comparison: Comparison | None


@dataclass(frozen=True)
class Alignment:
    """The effect of rounding on one model at one setting."""

    model: str
    setting: Setting
    steps: tuple[Rounding, ...]

    @property
    def best(self) -> int:
        """The multiple that is fastest, 1 where none is really faster than that."""
        faster = [step for step in self.steps if step.comparison and step.comparison.real and step.comparison.ratio < 1]
        return min(faster, key=lambda step: step.comparison.ratio if step.comparison else 1.0).round_to if faster else 1

    @property
    def words(self) -> str:
        """What to do."""
        where = f"{short(self.setting.provider)}, batch {self.setting.batch}"
        if self.best == 1:
            noisy = any(step.comparison.noisy for step in self.steps if step.comparison)
            more = "; it was too noisy to be sure, so measure with more --seconds" if noisy else ""
            return f"no rounding was seen to pay for this model on {where}{more}"
        return f"on {where} use --round-to {self.best}: faster than widths as they come, though more is kept"


def alignment(path: Path, request: BenchmarkRequest, progress: Callable[[str], None] = lambda _: None) -> Alignment:
    """Prune with several roundings and time the results at the first setting of the request; nothing is kept.

    Raises UsageError where every rounding comes to the same file, else as pipeline.compress and measure.
    """
    (provider, *_), _ = choose_providers(request.providers)
    setting = Setting(provider, request.batches[0], request.threads[0], request.warmup)
    ports = ports_of(open_model(path))
    sizes, values, _ = sizes_for(path, ports, request.input_shapes, None)
    feed = Inputs(tuple(ports), sizes, None, request.seed, values).feed(setting.batch)
    with tempfile.TemporaryDirectory() as folder:
        files, parameters = _pruned(path, Path(folder), progress)
        if len(files) == 1:
            raise UsageError(
                f"{path}: all of its groups come out the same however they are rounded; nothing to measure"
            )
        latencies = measure_latency(
            list(files.values()),
            setting,
            rounds=request.rounds,
            seconds=request.seconds,
            feed=feed,
            seed=request.seed,
            progress=progress,
        )
    steps = [
        Rounding(multiple, parameters[multiple], latency, compare(latencies[0], latency) if index else None)
        for index, (multiple, latency) in enumerate(zip(files, latencies, strict=True))
    ]
    return Alignment(str(path), latencies[0].setting, tuple(steps))


def _pruned(path: Path, folder: Path, progress: Callable[[str], None]) -> tuple[dict[int, Path], dict[int, int]]:
    """A file and its parameters by multiple; a multiple that changes nothing against the one before is left out."""
    whole = State.of(inspect(path), path)
    files: dict[int, Path] = {}
    parameters: dict[int, int] = {}
    for done, multiple in enumerate(MULTIPLES):
        progress(Counted(f"pruning to multiples of {multiple}", done, len(MULTIPLES)))
        model = _cut(whole, multiple)
        left = cost.stored_cost(model).parameters
        if left not in parameters.values():
            files[multiple], parameters[multiple] = folder / f"{multiple}.onnx", left
            save(model, files[multiple])
    return files, parameters


def _cut(whole: State, multiple: int) -> ir.Model:
    """The model without the RATIO weakest units of every group, its axes rounded up to a multiple."""
    state = Prune(ratio=RATIO, scope="uniform", round_to=multiple)(whole, Context())
    return Clean()(state, Context()).model
