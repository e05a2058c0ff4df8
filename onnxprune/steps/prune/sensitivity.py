"""How much each group alone may lose: cut it at several ratios, run the model, and see what the outputs say.

Every point is a model that was really cut and run in ONNX Runtime, so this takes a while. Points are measured by
several processes and written to a cache as they come: an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
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

from onnxprune.steps.prune.allocation.base import Curve, Scores, share, weakest
from onnxprune.data.base import Batch, Data, length_of
from onnxprune.analysis.coupling import Group
from onnxprune.errors import UsageError
from onnxprune.steps.base import Means
from onnxprune.evaluation.metrics import Metric, chosen_output, evaluate, metric, outputs_of
from onnxprune.model.file import open_model, save, staged_text
from onnxprune.analysis.inspect import inspect
from onnxprune.steps.plan import Plan, plan_from_masks
from onnxprune.support.progress import Counted
from onnxprune.steps.recover.methods import NONE
from onnxprune.runtime.session import Session
from onnxprune.model.signature import ports_of
from onnxprune.steps.prune.candidates import build

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
        curves: per group id, the metric at each number of units lost, beginning with none.
        recovery: how every cut was recovered, or "none".
        samples: how many it was measured on.
    """

    metric: str
    whole: float
    higher_is_better: bool
    curves: dict[str, Curve]
    recovery: str = NONE
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
        """What is removed, for the cache."""
        return hashlib.sha256(json.dumps([(r.group, r.remove) for r in self.plan.removals]).encode()).hexdigest()[:16]


def measure(
    path: Path,
    groups: Sequence[Group],
    scores: Mapping[str, Scores],
    means: Means,
    ratios: Sequence[float] = RATIOS,
) -> Sensitivity:
    """Measure every group at every ratio.

    Args:
        path: the model; it is only read.
        groups: those to measure.
        scores: per group id, float64 [units]; the weakest units go.
        means: data, metric (None: kl of outputs with classes, else snr), processes, cache, and a recovery of every cut
            where that is wanted; it then sees two thirds of the data, and the others are measured on.
        ratios: shares of the units of each group.

    Raises DataError and UsageError for data or a metric that does not fit, ModelError when a cut cannot be run.
    """
    if means.data is None:
        raise UsageError("sensitivity needs data to measure on: give --data (an .npz, a folder, or synthetic)")
    means = means.keeping_apart(ports_of(open_model(path)))
    fitted, measured = means.data, means.measured
    assert fitted is not None
    assert measured is not None
    with tempfile.TemporaryDirectory(prefix="onnxprune-") as name:
        folder = Path(name)
        digest, samples = _store(measured, folder / MEASURED)
        found = _metric(path, measured, means.metric)
        what = [_digest(path), digest, found.name]
        if means.recovers:
            what += [means.method, str(means.seed)]
        if fitted is not measured:
            what.append(_store(fitted, folder / FITTED)[0])
        known = _Cache(means.cache, hashlib.sha256(" ".join(what).encode()).hexdigest()[:32])
        task = Task(path, folder, found.name, means.method, means.seed, fitted is measured)
        points = list(_points(groups, scores, ratios))
        _fill(known, task, points, means)
    whole = known.values["whole"]
    curves = {}
    for group in groups:
        mine = [point for point in points if point.group == group.id]
        values = [known.values[point.key] for point in mine]
        curves[group.id] = Curve((0, *(point.lost for point in mine)), (whole, *values))
    return Sensitivity(found.name, whole, found.higher_is_better, curves, means.method, samples)


def _fill(known: _Cache, task: Task, points: Sequence[Point], means: Means) -> None:
    """Measure what is not known yet."""
    missing = [point for point in points if point.key not in known.values]
    means.progress(f"measuring {len(missing)} cuts")
    if missing or "whole" not in known.values:
        known.add("whole", task.value(task.path))  # this also leaves the original's outputs for the processes
    for number, (point, value) in enumerate(_run(task, missing, means.jobs), 1):
        known.add(point.key, value)
        said = f"measuring cut {number} of {len(missing)}: {point.group} without {point.lost}"
        means.progress(Counted(said, number, len(missing)))


def _metric(path: Path, data: Data, name: str | None) -> Metric:
    output = chosen_output(Session(path).outputs)
    if name is None:
        name = DAMAGES[0] if metric(None, False, output).name == "agreement" else DAMAGES[1]
    return metric(name, data.labelled, output)


def _points(groups: Sequence[Group], scores: Mapping[str, Scores], ratios: Sequence[float]) -> Iterator[Point]:
    for group in groups:
        for lost in sorted({share(ratio, group.units) for ratio in ratios} - {0}):
            yield Point(group.id, lost, plan_from_masks([(group, weakest(scores[group.id], lost))], {}))


@dataclass(frozen=True)
class Task:
    """All that a process needs to measure a point: paths and names, so that it can be sent.

    Attributes:
        path: the model.
        folder: where the data is, in MEASURED and, unless they are `together`, in FITTED.
        metric: its name.
        method: how a cut is recovered, or "none".
        seed: of that.
        together: recovery sees what is measured on.
    """

    path: Path
    folder: Path
    metric: str
    method: str = NONE
    seed: int = 0
    together: bool = True

    def __call__(self, point: Point) -> float:
        """Cut, recover and measure."""
        file = self.folder / f"{os.getpid()}.onnx"
        file.unlink(missing_ok=True)
        model = build(inspect(self.path), point.plan)
        fitted = _stored(self.folder / (MEASURED if self.together else FITTED))
        Means(fitted, self.method, self.seed).mend(self.path, point.plan, model)
        save(model, file)
        return self.value(file)

    def value(self, file: Path) -> float:
        """The metric of a file; the original's outputs are computed once and kept beside the data."""
        data = _stored(self.folder / MEASURED)
        found = metric(self.metric, data.labelled)
        reference = None
        if found.needs_reference:
            kept = self.folder / "reference.npz"
            if not kept.exists():
                np.savez(kept, *outputs_of(self.path, data))
            with np.load(kept, allow_pickle=False) as arrays:
                reference = [arrays[f"arr_{index}"] for index in range(len(arrays.files))]
        return evaluate(file, data, found, reference)


def _run(task: Task, points: Sequence[Point], jobs: int) -> Iterator[tuple[Point, float]]:
    """Points with their values, as they come."""
    if jobs == 1 or len(points) < 2:
        yield from ((point, task(point)) for point in points)
        return
    others = active_children()
    with ProcessPoolExecutor(min(jobs, len(points)), mp_context=get_context("spawn")) as pool:
        try:
            with _deaf_to_ctrl_c():
                running = {pool.submit(task, point): point for point in points}
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


# Whether the system can be asked about the user that the process acts as.
_EFFECTIVE = os.access in os.supports_effective_ids


class _Cache:
    """Values by key in a JSON file, written anew with every value: whatever happens, what is there is whole."""

    def __init__(self, folder: Path | None, name: str) -> None:
        self.values: dict[str, float] = {}
        self._file = None if folder is None else folder / f"{name}.json"
        if self._file is not None:
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(
                    f"nothing can be kept in {folder}: {error.strerror}; name another folder with --cache"
                ) from None
            self.values = _read(self._file)

    def add(self, key: str, value: float) -> None:
        self.values[key] = value
        if self._file is not None:
            with staged_text(json.dumps(self.values), self._file):
                pass


def _read(file: Path) -> dict[str, float]:
    """What the file holds; nothing where there is none or it is damaged."""
    try:
        found = json.loads(file.read_text())
        return {str(key): float(value) for key, value in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _digest(path: Path) -> str:
    """Of the model's file and its external data."""
    total = hashlib.sha256()
    for file in open_model(path).meta["files"]:
        with Path(file).open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def _store(data: Data, folder: Path) -> tuple[str, int]:
    """Write the batches where other processes find them; the digest of what they hold, and how many samples that is."""
    total, samples = hashlib.sha256(), 0
    folder.mkdir()
    for index, batch in enumerate(data.batches()):
        texts = {name: array.dtype.kind == "O" for name, array in batch.feed.items()}
        arrays = {f"input {name}": array.astype(str) if texts[name] else array for name, array in batch.feed.items()}
        if batch.labels is not None:
            arrays["labels"] = batch.labels
        for name, array in sorted(arrays.items()):
            total.update(f"{name} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        np.savez(folder / f"batch{index}.npz", **arrays)  # type: ignore[arg-type]
        samples += length_of(batch)
    return total.hexdigest(), samples


def _stored(folder: Path) -> Data:
    files = sorted(folder.glob("batch*.npz"), key=lambda file: int(file.stem.removeprefix("batch")))

    def batches() -> Iterator[Batch]:
        for file in files:
            with np.load(file, allow_pickle=False) as arrays:
                feed = {name.removeprefix("input "): arrays[name] for name in arrays.files if name != "labels"}
                yield Batch(feed, arrays["labels"] if "labels" in arrays.files else None)

    return Data("stored samples", next(batches()).labels is not None, batches)


def default_cache() -> Path | None:
    """`$XDG_CACHE_HOME/onnxprune`, or `~/.cache/onnxprune`; None where nothing can be kept, as in many containers."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "onnxprune"
    there = next(
        path for path in (folder, *folder.parents) if os.path.exists(path)
    )  # of what may not be looked into: no
    return folder if there.is_dir() and os.access(there, os.W_OK | os.X_OK, effective_ids=_EFFECTIVE) else None
