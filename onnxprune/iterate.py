"""A cut in several steps: score, cut, recover, and again with what is left."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from onnxprune import cost, pipeline, schedule
from onnxprune import recover as recovering
from onnxprune.calibration.base import Data
from onnxprune.coupling import Analysis, Group
from onnxprune.dims import atoms
from onnxprune.errors import NothingToPruneError, TargetError, UsageError
from onnxprune.model import file_bytes, save
from onnxprune.opening import analyze_model, inspect
from onnxprune.passes.share_initializers import ShareInitializers
from onnxprune.plan import Plan, compose, structure_of
from onnxprune.progress import Progress, silent, within
from onnxprune.recover import Recovery
from onnxprune.report.data import GroupReport
from onnxprune.report.details import details_of
from onnxprune.result import Result
from onnxprune.runtime.latency import Setting
from onnxprune.targets import Met, Target, parse
from onnxprune.trials import Trials


def compress_in_steps(
    path: str | Path,
    criterion: str | None = None,
    ratio: float = 0.5,
    *,
    steps: int,
    schedule_name: str = "cubic",
    data: Data | None = None,
    recover: str | None = None,
    target: Sequence[str] = (),
    seed: int = 0,
    progress: Progress = silent,
    **options: Any,
) -> Result:
    """Remove the weakest units in several steps, each scored on what the one before left and recovered.

    Every step recovers towards the original. The plan of the result says what goes from the original in all.

    Args:
        path: the ONNX file.
        criterion: see `pipeline.compress`, as for all that is not named here.
        ratio: share of the units that have gone in the end, up to rounding in every step.
        steps: how many.
        schedule_name: one of `schedule.SCHEDULES`.
        data: calibration data.
        recover: how to win the accuracy back in every step.
        target: what to come down to in the end, by steps that follow the schedule too.
        seed: of everything random.
        progress: told what is being done.
        options: of `pipeline.compress`.

    Raises what `pipeline.compress` raises, and UsageError for targets that cannot be reached in steps.
    """
    schedule.check(steps, schedule_name)
    if not 0 <= ratio < 1:
        raise UsageError(f"ratio {ratio:g} is outside [0, 1): it is the share of units to remove, like 0.5")
    method = recover or (recovering.NONE if data is None else recovering.BEST)
    recovering.check_method(method)
    original = inspect(path)
    ratios = schedule.ratios(ratio, steps, schedule_name)
    targets = schedule.limits([parse(text) for text in target], _whole(original), steps, schedule_name)
    total, recovery = Plan((), {}, structure_of(original)), Recovery()
    folder = tempfile.TemporaryDirectory(prefix="onnxprune-")
    current = Path(path)
    for step in range(steps):

        def told(text: str, step: int = step) -> None:
            progress(within(f"step {step + 1} of {steps}", text))

        try:
            result = pipeline.compress(
                current,
                criterion,
                ratios[step],
                target=targets[step],
                data=data,
                recover=recovering.NONE,
                seed=seed,
                progress=told,
                **options,
            )
        except NothingToPruneError:
            if step == 0:
                raise
            break  # every group is down to its last unit
        total = compose(total, _named_as_in(original, inspect(current), result.plan))
        if method != recovering.NONE and result.plan.removed_units:
            recovery = _recovered(path, result, total, method, data, seed, told, options)
            ShareInitializers()(result.model)
        current = Path(folder.name) / f"step{step}.onnx"
        save(result.model, current)
    result.model.meta["folder"] = folder  # its weights are in there until they are written
    request = {**result.plan.request, "ratio": ratio, "target": tuple(target)}
    plan = replace(total, request={**request, "steps": steps, "schedule": schedule_name})
    met = _met(Path(path), current, [parse(text) for text in target], original, result, options)
    return _finished(Path(path), original, plan, result, recovery, met)


def _named_as_in(original: Analysis, current: Analysis, plan: Plan) -> Plan:
    """A plan for what is left of a model, with its groups called as in the original.

    A group is called after the first weight that holds it, and recovery brings new biases; most weights keep their
    names, and the group that most of them speak of is the one.
    """
    known = {place: group.id for group in original.groups for place in _places(group)}
    names = {}
    for group in current.groups:
        votes = Counter(known[place] for place in _places(group) if place in known)
        names[group.id] = votes.most_common(1)[0][0] if votes else group.id
    removals = tuple(replace(each, group=names.get(each.group, each.group)) for each in plan.removals)
    return replace(plan, removals=removals)


def _places(group: Group) -> Iterator[tuple[str, int, int]]:
    """Tensor and axis of every occurrence, and which of the axis' dimensions the group is."""
    for occurrence in group.occurrences:
        inside = list(dict.fromkeys(atoms(occurrence.dim)))
        yield occurrence.tensor, occurrence.axis, inside.index(group.atom)


def _met(
    path: Path,
    current: Path,
    targets: Sequence[Target],
    original: Analysis,
    result: Result,
    options: dict[str, Any],
) -> list[Met]:
    """What came of the targets, seen from the original. Raises TargetError where a latency is missed after all."""
    before, after = _whole(original), result.report.after
    reached = {"params": after.parameters, "macs": after.macs, "size": result.report.file_bytes[1]}
    found = []
    for target in targets:
        whole, left = before.get(target.kind, 0.0), float(reached.get(target.kind, 0.0))
        if target.kind == "latency":
            with Trials(path, inspect, setting=options.get("setting") or Setting()) as trials:
                whole, left = trials.compare(current)
        found.append(Met(target, whole, target.limit * whole if target.relative else target.limit, left))
        if not found[-1].holds:
            raise TargetError(f"{found[-1]}: missed when the last step was measured beside the original; ask for less")
    return found


def _whole(original: Analysis) -> dict[str, float]:
    before = cost.before(original)
    return {"params": before.parameters, "macs": before.macs, "size": file_bytes(original.model)}


def _recovered(
    path: str | Path,
    result: Result,
    total: Plan,
    method: str,
    data: Data | None,
    seed: int,
    progress: Progress,
    options: dict[str, Any],
) -> Recovery:
    """Recover the model of a step towards the original, in place."""
    original, pruned = inspect(path), analyze_model(result.model)
    providers = options.get("providers", pipeline.CPU)
    keep = total.keep(original)
    return recovering.recover(original, pruned, keep, method, data, seed=seed, providers=providers, progress=progress)


def _finished(
    path: Path, original: Analysis, plan: Plan, result: Result, recovery: Recovery, met: Sequence[Met]
) -> Result:
    """The result of the last step, told as what was done to the original."""
    kept = {atom: int(mask.sum()) for atom, mask in plan.keep(original).items()}
    groups = tuple(GroupReport(g.id, g.kind, g.units, kept.get(g.atom, g.units), g.statistics) for g in original.groups)
    own = (note for note in result.report.notes if not note.startswith("target met, "))
    report = replace(
        result.report,
        notes=(*own, *(f"target met, {each}" for each in met)),
        before=cost.before(original),
        sizes=cost.sizes_of_sample(original),
        file_bytes=(file_bytes(original.model), result.report.file_bytes[1]),
        groups=groups,
        unruled=dict(original.unruled),
        recovery=recovery,
        details=details_of(original, plan, None),
    )
    return Result(result.model, plan, report, path, original.shapes.bindings)
