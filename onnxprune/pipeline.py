"""The main job, from a file to a smaller file, and the read-only half of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxprune import cost, verify
from onnxprune.allocation.base import allocations, weakest
from onnxprune.allocation.rounding import round_up
from onnxprune.coupling import Analysis, Group, analyze
from onnxprune.cost import Cost
from onnxprune.criteria.base import Context, WeightReader, criteria, score_groups
from onnxprune.errors import NothingToPruneError, UsageError
from onnxprune.model import open_model, save, staged
from onnxprune.passes.canonicalize import Canonicalize
from onnxprune.passes.remove_dead import RemoveDead
from onnxprune.passes.remove_units import RemoveUnits
from onnxprune.passes.share_initializers import ShareInitializers
from onnxprune.passes.strip_metadata import StripMetadata
from onnxprune.plan import Plan, plan_from_masks
from onnxprune.selection import select

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What to remove, as the command line says it.

    Attributes:
        criterion: name of the score, see `criteria`.
        ratio: share of the units that go, in [0, 1).
        scope: "uniform" (each group loses the ratio) or "global" (one ranking).
        round_to: axis sizes come out as multiples of this where they can.
        only: kinds or name patterns to work on (empty: all).
        skip: kinds or name patterns to leave alone.
        seed: of everything random.
    """

    criterion: str = "l1"
    ratio: float = 0.5
    scope: str = "uniform"
    round_to: int = 1
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    seed: int = 0

    def check(self) -> None:
        """Raises UsageError for a value that makes no sense, before any file is opened."""
        if not 0 <= self.ratio < 1:
            raise UsageError(f"ratio {self.ratio:g} is outside [0, 1): it is the share of units to remove, like 0.5")
        if self.round_to < 1:
            raise UsageError(f"round-to {self.round_to} makes no sense: give a multiple for axis sizes, like 8")
        criteria[self.criterion]
        allocations[self.scope]


@dataclass(frozen=True)
class GroupReport:
    """One group before and after."""

    id: str
    kind: str
    units: int
    kept: int
    statistics: bool


@dataclass(frozen=True)
class Report:
    """What a run did, in numbers."""

    before: Cost
    after: Cost
    file_bytes: tuple[int, int]
    groups: tuple[GroupReport, ...]
    unruled: dict[str, int]
    notes: tuple[str, ...] = ()


@dataclass
class Result:
    """A pruned model, the plan that made it, and the numbers. `save` checks and writes it."""

    model: ir.Model
    plan: Plan
    report: Report
    _source: Path = field(repr=False)
    _sizes: dict[str, int] = field(repr=False)

    def save(self, path: str | Path, *, external: bool | None = None, seed: int = 0) -> Report:
        """Write to `path` after checker, shape inference and one ONNX Runtime run on both files; atomic.

        Raises VerificationError when a check fails, ModelError when the original cannot be run or the file not be
        written. In both cases nothing is left behind.
        """
        session, feed, expected = verify.run_original(self._source, self._sizes, seed)
        with staged(self.model, path, external=external) as written:
            verify.verify(written, session, feed, expected)
            size = sum(file.stat().st_size for file in written.parent.iterdir())
        before, _ = self.report.file_bytes
        self.report = Report(**{**self.report.__dict__, "file_bytes": (before, size)})
        return self.report


def silent(_: str) -> None:
    """Progress that nobody watches."""


def inspect(path: str | Path) -> Analysis:
    """Open a model and find what can be pruned; the file is only read.

    Raises ModelError with one line when the file cannot be worked on.
    """
    model = open_model(path)
    _, shapes = Canonicalize().with_shapes(model)
    RemoveDead()(model)
    return analyze(model, shapes)


def compress(
    path: str | Path,
    criterion: str = "l1",
    ratio: float = 0.5,
    *,
    scope: str = "uniform",
    round_to: int = 1,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    seed: int = 0,
    keep_metadata: bool = False,
    progress: Progress = silent,
) -> Result:
    """Remove the weakest units of a model; see `Request` for the options.

    Raises UsageError for options that make no sense, ModelError for a file that cannot be worked on, and
    NothingToPruneError when every dimension is frozen or excluded.
    """
    request = Request(criterion, ratio, scope, round_to, tuple(only), tuple(skip), seed)
    request.check()
    progress("analysing")
    analysis = inspect(path)
    groups = select(analysis, request.only, request.skip)
    if not groups:
        raise NothingToPruneError(_nothing(path, analysis))
    progress("scoring")
    plan = make_plan(analysis, groups, request)
    progress("removing")
    return _remove(Path(path), analysis, plan, keep_metadata)


def apply(path: str | Path, plan: Plan, *, keep_metadata: bool = False) -> Result:
    """Replay a plan. Raises PlanError when it does not fit the model, ModelError as `compress`."""
    return _remove(Path(path), inspect(path), plan, keep_metadata)


def make_plan(analysis: Analysis, groups: list[Group], request: Request) -> Plan:
    """Score the groups and decide which units go."""
    scores = score_groups(request.criterion, groups, Context(analysis, WeightReader(analysis), request.seed))
    lost = allocations[request.scope](scores, request.ratio)
    if request.round_to > 1:
        lost = round_up(groups, lost, request.round_to)
    return plan_from_masks([(group, weakest(scores[group.id], lost[group.id])) for group in groups], request.__dict__)


def _remove(path: Path, analysis: Analysis, plan: Plan, keep_metadata: bool) -> Result:
    model = analysis.model
    before = cost.measure(analysis)
    kept = {atom: int(mask.sum()) for atom, mask in plan.keep(analysis).items()}
    after = cost.measure(analysis, kept)
    RemoveUnits(analysis, plan)(model)
    RemoveDead()(model)
    ShareInitializers()(model)
    if not keep_metadata:
        StripMetadata()(model)
    after = Cost(after.parameters, after.macs, after.weight_bytes, len(model.graph))
    groups = tuple(
        GroupReport(g.id, g.kind, g.units, kept.get(g.atom, g.units), g.statistics) for g in analysis.groups
    )
    report = Report(before, after, (file_bytes(path), 0), groups, dict(analysis.unruled))
    return Result(model, plan, report, path, analysis.shapes.bindings)


def file_bytes(path: Path) -> int:
    """The size of a model on disk, with its external data."""
    model = open_model(path)
    files = {
        Path(tensor.path)
        for value in model.graph.initializers.values()
        if isinstance(tensor := value.const_value, ir.ExternalTensor)
    }
    return sum(file.stat().st_size for file in files | {path.absolute()} if file.exists())


def _nothing(path: str | Path, analysis: Analysis) -> str:
    if analysis.groups:
        return f"{path}: all {len(analysis.groups)} groups are excluded by --only / --skip; loosen them"
    reasons = {str(frozen.reason) for frozen in analysis.frozen}
    first = f"; for example: {sorted(reasons)[0]}" if reasons else ""
    return f"{path}: nothing can be pruned, every dimension is frozen{first}; see: onnxprune inspect {path}"


__all__ = ["Report", "Request", "Result", "apply", "compress", "inspect", "save"]
