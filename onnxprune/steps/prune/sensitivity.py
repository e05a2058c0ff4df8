"""How much each group alone may lose: cut it at several ratios, run the model, and see what the outputs say.

Every point is a model that was really cut and run in ONNX Runtime, so this takes a while. Points are measured by
several processes and written to a cache as they come: an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from math import isfinite
from multiprocessing import active_children, get_context
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxprune.analysis.groups import Group
from onnxprune.analysis.inspect import inspect
from onnxprune.data.base import Data
from onnxprune.data.stored import store, stored_samples
from onnxprune.errors import UsageError
from onnxprune.evaluation.metrics import Metric, chosen_output, evaluate, metric, outputs_of
from onnxprune.model.file import digest as content_of
from onnxprune.model.file import save
from onnxprune.model.signature import ports_of
from onnxprune.runtime.session import Session
from onnxprune.steps.base import Context
from onnxprune.steps.plan import Plan, plan_from_masks
from onnxprune.steps.prune.allocation.base import Curve, Scores, share, weakest
from onnxprune.steps.recover.step import Recover, keep_apart
from onnxprune.steps.state import State
from onnxprune.support.cache import Cache
from onnxprune.support.progress import Counted

RATIOS = (0.125, 0.25, 0.5, 0.75)
# What is taken for the damage of an output with classes, and of any other: both grow from 0 without a bound.
DAMAGES = ("kl", "snr")
# Where processes find the samples.
MEASURED, FITTED = "measured", "fitted"


@dataclass(frozen=True)
class Sensitivity:
    """What was measured.

    Attributes:
        metric: its name.
        whole: its value of the original.
        higher_is_better: whether more is better.
        curves: per group id, the metric at each number of units removed, beginning with none.
        recovery: how every cut was recovered, or "none".
        samples: how many it was measured on.
    """

    metric: str
    whole: float
    higher_is_better: bool
    curves: dict[str, Curve]
    recovery: str = "none"
    samples: int = 0

    def damages(self) -> dict[str, Curve]:
        """The curves as damage: 0 for the whole group, never falling.

        An SNR of s dB becomes the noise-to-signal ratio 10^(-s / 10); of any other metric it is the loss.
        """
        return {group: Curve(curve.lost, self._damage(curve.values)) for group, curve in self.curves.items()}

    def _damage(self, values: Sequence[float]) -> tuple[float, ...]:
        if self.metric == "snr":
            found = [10 ** (-value / 10) for value in values]
        else:
            sign = 1.0 if self.higher_is_better else -1.0
            found = [sign * (self.whole - value) for value in values]
        finite = [damage if isfinite(damage) else 1e9 for damage in found]
        return tuple(float(each) for each in np.maximum.accumulate([max(0.0, damage) for damage in finite]))


@dataclass(frozen=True)
class Point:
    """One model to measure: a group without so many of its weakest units."""

    group: str
    lost: int
    plan: Plan

    @property
    def key(self) -> str:
        """The removals, for the cache."""
        return hashlib.sha256(json.dumps([(r.group, r.remove) for r in self.plan.removals]).encode()).hexdigest()[:16]


def measure_sensitivity(
    state: State,
    groups: Sequence[Group],
    scores: Mapping[str, Scores],
    context: Context,
    *,
    recover: Recover | None = None,
    ratios: Sequence[float] = RATIOS,
) -> Sensitivity:
    """Measure every group at every ratio.

    Args:
        state: the model, with nothing removed from it.
        groups: those to measure.
        scores: per group id, float64 [units]; the weakest units go.
        context: data, metric (None: kl of outputs with classes, else snr), processes, cache.
        recover: how every cut is recovered; that sees two thirds of the data, and the others are measured on.
        ratios: shares of the units of each group.

    Raises DataError and UsageError for data or a metric that does not fit, ModelError when a cut cannot be run.
    """
    if context.data is None:
        raise UsageError("sensitivity needs data to measure on: give --data (an .npz, a folder, or synthetic)")
    context = keep_apart(context, recover, ports_of(state.original.model))
    fitted, measured = context.data, context.measured
    assert fitted is not None
    assert measured is not None
    with tempfile.TemporaryDirectory(prefix="onnxprune-") as name:
        folder = Path(name)
        digest, samples = store(measured, folder / MEASURED)
        found = _metric(state.source, measured, context.metric)
        what = [content_of(state.original.model), digest, found.name]
        if recover is not None:
            what += [str(recover), str(context.seed)]
        if fitted is not measured:
            what.append(store(fitted, folder / FITTED)[0])
        known = Cache(context.cache, hashlib.sha256(" ".join(what).encode()).hexdigest()[:32])
        sizes = tuple(state.original.model.meta.get("sizes", {}).items())
        task = Task(folder, found.name, recover, context.seed, fitted is measured, sizes)
        points = list(_points(groups, scores, ratios))
        _fill(known, task, state, points, context)
    whole = known.values["whole"]
    curves = {}
    for group in groups:
        mine = [point for point in points if point.group == group.id]
        values = [known.values[point.key] for point in mine]
        curves[group.id] = Curve((0, *(point.lost for point in mine)), (whole, *values))
    method = "none" if recover is None else recover.chosen(data=True)
    return Sensitivity(found.name, whole, found.higher_is_better, curves, method, samples)


def _fill(known: Cache, task: Task, state: State, points: Sequence[Point], context: Context) -> None:
    """Measure what is not known yet."""
    missing = [point for point in points if point.key not in known.values]
    context.progress(f"measuring {len(missing)} cuts")
    if missing or "whole" not in known.values:
        known.add("whole", task.value(state, state.source))  # this leaves the original's outputs for the processes, too
    for number, (point, value) in enumerate(_run(task, state, missing, context.jobs), 1):
        known.add(point.key, value)
        said = f"measuring cut {number} of {len(missing)}: {point.group} without {point.lost}"
        context.progress(Counted(said, number, len(missing)))


def _metric(source: Path | ir.Model, data: Data, name: str | None) -> Metric:
    output = chosen_output(Session(source).outputs)
    if name is None:
        name = DAMAGES[0] if metric(None, False, output).name == "agreement" else DAMAGES[1]
    return metric(name, data.labelled, output)


def _points(groups: Sequence[Group], scores: Mapping[str, Scores], ratios: Sequence[float]) -> Iterator[Point]:
    for group in groups:
        for lost in sorted({share(ratio, group.units) for ratio in ratios} - {0}):
            yield Point(group.id, lost, plan_from_masks([(group, weakest(scores[group.id], lost))]))


@dataclass(frozen=True)
class Task:
    """All that a process needs to measure a point beside the model: paths and names, so that it can be sent.

    Attributes:
        folder: where the data is, in MEASURED and, unless they are `together`, in FITTED.
        metric: its name.
        recover: how a cut is recovered.
        seed: of that.
        together: recovery sees what is measured on.
        sizes: of dynamic axes that the model is analysed at.
    """

    folder: Path
    metric: str
    recover: Recover | None = None
    seed: int = 0
    together: bool = True
    sizes: tuple[tuple[str, int], ...] = ()

    def __call__(self, path: Path, point: Point) -> float:
        """Measure a point of the model in a file, which a process opens once."""
        return self.measure(_opened(path, self.sizes), point)

    def measure(self, state: State, point: Point) -> float:
        """Cut, recover and measure."""
        made = state.cut(point.plan.keep(state.original))
        if self.recover is not None:
            fitted = stored_samples(self.folder / (MEASURED if self.together else FITTED))
            made = self.recover(made, Context(seed=self.seed, data=fitted))
        return self.value(state, made.model)

    def value(self, state: State, model: Path | ir.Model) -> float:
        """The metric of a model; the original's outputs are computed once and kept beside the data."""
        data = stored_samples(self.folder / MEASURED)
        found = metric(self.metric, data.labelled)
        reference = None
        if found.needs_reference:
            kept = self.folder / "reference.npz"
            if not kept.exists():
                np.savez(kept, *outputs_of(state.source, data))
            with np.load(kept, allow_pickle=False) as arrays:
                reference = [arrays[f"arr_{index}"] for index in range(len(arrays.files))]
        return evaluate(model, data, found, reference)


@functools.lru_cache(maxsize=1)
def _opened(path: Path, sizes: tuple[tuple[str, int], ...]) -> State:
    return State.of(inspect(path, dict(sizes)), path)


def _run(task: Task, state: State, points: Sequence[Point], jobs: int) -> Iterator[tuple[Point, float]]:
    """Points with their values, as they come."""
    if jobs == 1 or len(points) < 2:
        yield from ((point, task.measure(state, point)) for point in points)
        return
    path = state.source
    if not isinstance(path, Path):
        path = task.folder / "model.onnx"
        save(state.model, path)
    others = active_children()
    with ProcessPoolExecutor(min(jobs, len(points)), mp_context=get_context("spawn")) as pool:
        try:
            with _deaf_to_ctrl_c():
                running = {pool.submit(task, path, point): point for point in points}
            for done in as_completed(running):
                yield running[done], done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in active_children():
                if process not in others:
                    process.terminate()
            raise


@contextlib.contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """What is started in the block leaves Ctrl-C to this process, which ends it; else each prints a traceback."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)
