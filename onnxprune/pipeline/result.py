"""The result of a recipe: a model in memory, its recipe, the numbers, and how it gets into a file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from onnxprune.analysis import cost
from onnxprune.analysis.cost import Cost
from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.inspect import blaming
from onnxprune.evaluation import verify
from onnxprune.evaluation.quality import Quality
from onnxprune.model.file import estimated_bytes, file_bytes, staged, to_proto
from onnxprune.steps.plan import Plan
from onnxprune.steps.recover.layerwise import LayerError
from onnxprune.steps.recover.step import NONE
from onnxprune.steps.sparsify.measure import sparsity_numbers, zipped_bytes
from onnxprune.steps.state import State
from onnxprune.support.files import check_targets
from onnxprune.support.notebook import html_table
from onnxprune.support.processes import is_first_process
from onnxprune.support.progress import Progress, silent

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class GroupReport:
    """One group before and after."""

    id: str
    kind: str
    units: int
    kept: int
    statistics: bool


@dataclass(frozen=True, repr=False)
class Report:
    """The numbers of a run.

    Attributes:
        before: what the model cost, as it was in the file.
        after: what is left.
        sizes: the size of each dynamic axis that the MACs are counted at.
        file_bytes: on disk, before and after, external data included.
        estimated: nothing was written yet, the second figure of `file_bytes` is the sum of the parts.
        groups: every group of the model, in topological order.
        unruled: operators without a rule and their counts: the dimensions that they touch were left alone.
        notes: what a person should know besides.
        recovery: how the accuracy was recovered, "none" where it was not.
        errors: per layer that was recovered, its error before and after; in topological order.
        trainings: what each training did: `metric`, `start`, `best` and the rest, see `docs/json.md`.
        quantization: what became of the layers in `quantize`: `type`, `layers` and what was chosen; None without it.
        sparsity: weights and zeros of the layers that have to have some: `layers`, `zipped_bytes` and how they were
            chosen, see `docs/json.md`; None where no weight has to be zero.
        quality: what the cut costs, metrics before and after; None where no step has measured it.
    """

    before: Cost
    after: Cost
    sizes: dict[str, int]
    file_bytes: tuple[int, int]
    estimated: bool
    groups: tuple[GroupReport, ...]
    unruled: dict[str, int]
    notes: tuple[str, ...] = ()
    recovery: str = NONE
    errors: tuple[LayerError, ...] = ()
    trainings: tuple[Mapping[str, Any], ...] = ()
    quantization: Mapping[str, Any] | None = None
    sparsity: Mapping[str, Any] | None = None
    quality: Quality | None = None

    def _scores(self) -> list[tuple[str, str, str, str]]:
        """Metrics first: name, before, after, and on what."""
        found = self.quality or Quality()
        return [(each.metric, each.shown(each.before), each.shown(each.after), found.on) for each in found.scores]

    def _rows(self) -> list[tuple[str, int, int, str]]:
        rows = [
            ("parameters", self.before.parameters, self.after.parameters),
            ("MACs", self.before.macs, self.after.macs),
            ("file bytes", *self.file_bytes),
        ]
        return [(name, old, new, f"{new / old:.1%}" if old else "-") for name, old, new in rows]

    def __repr__(self) -> str:
        smaller = [group for group in self.groups if group.kept < group.units]
        removed = sum(group.units - group.kept for group in smaller)
        others = [
            *([sparsity_line(self.sparsity)] if self.sparsity else []),
            *([quantization_line(self.quantization)] if self.quantization else []),
        ]
        cut = [f"{removed:,} units of {len(smaller)} groups removed"] if removed or not others else []
        first, *others = [*cut, *others]
        lines = [f"Report: {first}"]
        lines += [f"  {self.quality.damage}"] if self.quality is not None and self.quality.damage else []
        lines += [f"  {name:<11}{old:>15} -> {new:>15}  on {on}" for name, old, new, on in self._scores()]
        lines += [f"  {name:<11}{old:>15,} -> {new:>15,}  {left:>7} left" for name, old, new, left in self._rows()]
        if self.errors:
            lines.append(f"  recovered by {self.recovery}, {len(self.errors)} layers")
        lines += [f"  {each}" for each in others]
        if self.trainings:
            lines.append(f"  {training_line(self.trainings[-1])}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return html_table(("", "before", "after", "left"), [*self._scores(), *self._rows()])


@dataclass(repr=False)
class Result:
    """A model in memory, the recipe that made it, and the numbers. `save` checks and writes it.

    Attributes:
        state: what the steps have left.
        recipe: as plain data, see `Recipe.document`; empty where it was no recipe.
        original: the model that was given, as it ran: what the result is compared with.
        before: the analysis of that model.
    """

    state: State
    recipe: Mapping[str, Any]
    original: verify.Original
    before: Analysis
    _saved: Report | None = field(default=None, repr=False)

    @property
    def model(self) -> ir.Model:
        """The model in memory."""
        return self.state.model

    @cached_property
    def plan(self) -> Plan:
        """The units that were removed, and the recipe; see `apply`."""
        return replace(self.state.plan(), recipe=dict(self.recipe))

    def proto(self) -> onnx.ModelProto:
        """The model as onnx's own message, weights inside. Raises ModelError above 2 GB, which `save` can write."""
        return to_proto(self.model)

    @property
    def is_cut(self) -> bool:
        """Were the steps to make less of the model that was given? Else it was made from another one."""
        return self.before in (self.state.original, self.state.given)

    @property
    def report(self) -> Report:
        """The numbers; those of the file, once it is saved."""
        return self._saved or self._counted

    @cached_property
    def _counted(self) -> Report:
        before, model, records = self.before, self.model, self.state.records
        cut = self.is_cut
        kept = {atom: int(mask.sum()) for atom, mask in self.state.left.items()} if cut else {}
        whole = self.state.original if cut else before  # with layers split, where some are
        first, batch = cost.before(before), cost.batch_size(before)
        recovered = [record for record in records if record.step == "recover"]
        notes = [*before.model.meta.get("notes", ()), *(note for record in records for note in record.notes)]
        quantized = [record.numbers for record in records if record.step == "quantize"]
        evaluated = [record.numbers["quality"] for record in records if "quality" in record.numbers]
        if cut and not self.plan.removed_units and not self.state.ranks:
            notes += _nothing_removed(self.recipe)
        return Report(
            before=first,
            after=replace(cost.stored_cost(model), macs=cost.cost_of(whole, kept).macs // batch),
            sizes=cost.sizes_of_sample(before),
            file_bytes=(file_bytes(before.model), estimated_bytes(model)),
            estimated=True,
            groups=tuple(
                GroupReport(g.id, g.kind, g.units, kept.get(g.atom, g.units), g.statistics) for g in whole.groups
            ),
            unruled=dict(before.unruled),
            notes=tuple(dict.fromkeys(notes)),
            recovery=recovered[-1].numbers["method"] if recovered else NONE,
            errors=tuple(recovered[-1].numbers["errors"]) if recovered else (),
            trainings=tuple(record.numbers for record in records if record.step == "train"),
            quantization=_with_zipped(quantized[-1], before.model, model) if quantized else None,
            sparsity=sparsity_numbers(self.state, before.model),
            quality=evaluated[-1] if evaluated else None,
        )

    def save(
        self,
        path: str | Path,
        *,
        external: bool | None = None,
        plan: str | Path | None = None,
        progress: Progress = silent,
    ) -> Report:
        """Write to `path` after checker, shape inference and one ONNX Runtime run on both models; atomic.

        Args:
            path: where to; never the file that was read.
            external: weights in `<path>.data` (True), in the file (False), or as they were read (None).
            plan: where to write the plan; both files appear, or none.
            progress: is called with what is being done.

        Raises VerificationError when a check fails, ModelError when the original cannot be run or the file not be
        written, UsageError when `path` is no place for a file. In all cases nothing is left behind. Of several
        processes that were started together the first alone writes.
        """
        source = self.original.model
        check_targets([source] if isinstance(source, Path) else [], path, plan)
        if not is_first_process():
            return self.report
        progress("writing and checking")
        plan_written = contextlib.nullcontext() if plan is None else self.plan.staged(plan)
        with blaming(source), plan_written, staged(self.model, path, external=external) as written:
            notes = verify.verify(written, self.original, same=self._is_same)
            size = sum(file.stat().st_size for file in written.parent.iterdir())
        counted = self._counted
        sizes = (counted.file_bytes[0], size)
        self._saved = replace(counted, file_bytes=sizes, estimated=False, notes=(*counted.notes, *notes))
        return self._saved

    @property
    def _is_same(self) -> bool:
        """Nothing was removed that matters, and nothing was fitted."""
        steps = [record for record in self.state.records if record.step != "clean"]
        lossless = all(record.step == "prune" and record.options.get("lossless") for record in steps)
        whole = not self.state.left and all(record.step == "prune" for record in steps)
        return self.before is self.state.original and (whole or (bool(steps) and lossless))

    def __repr__(self) -> str:
        return f"Result, {self.report!r}"

    def _repr_html_(self) -> str:
        return self.report._repr_html_()


def training_line(numbers: Mapping[str, Any]) -> str:
    """Say in a few words how a training went."""
    start, best, name = numbers["start"], numbers["best"], numbers["metric"]
    shown = "" if name is None else f"{name} {_number(start['metric'])} -> {_number(best['metric'])}, "
    return f"trained for {numbers['updates']:,} updates: {shown}loss {start['loss']:.4g} -> {best['loss']:.4g}"


def quantization_line(numbers: Mapping[str, Any]) -> str:
    """Say in a few words which layers were quantized."""
    layers = numbers["layers"]
    kept = sum(not layer["bits"] for layer in layers)
    return f"quantized to {numbers['type']}: {len(layers) - kept} layers" + (f", {kept} stay in float" if kept else "")


def sparsity_line(numbers: Mapping[str, Any]) -> str:
    """How sparse the layers are, in a few words."""
    layers = numbers["layers"]
    weights, zeros = (sum(layer[name] for layer in layers) for name in ("weights", "zeros"))
    return f"{zeros / max(weights, 1):.1%} of {weights:,} weights of {len(layers)} layers are zero"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def output_path(source: Path, asked: Path | None, done: str = "pruned") -> Path:
    """Where a result goes: `model.onnx` becomes `model.pruned.onnx`, beside it or in the folder that was asked for."""
    name = f"{source.stem}.{done}.onnx"
    if asked is None:
        return source.parent / name
    # Unlike Path.is_dir it does not raise for a name that is too long; the error comes when the file is written.
    return asked / name if os.path.isdir(asked) else asked


def _nothing_removed(recipe: Mapping[str, Any]) -> list[str]:
    """Why no unit was removed; nothing where the recipe does not prune."""
    tables = [inner for table in recipe.get("step", ()) for inner in (table, *table.get("steps", ()))]
    options = next((table for table in tables if table["step"] == "prune"), None)
    if options is None:
        return []
    if options.get("lossless"):
        return ["no unit can go without a trace: nothing was removed"]
    if options.get("target"):
        return [f"{', '.join(options['target'])}: met without removing anything"]
    rounding = f" with round-to {options['round_to']}" if (options.get("round_to") or 1) > 1 else ""
    return [f"ratio {options.get('ratio', 0.5):g}{rounding} leaves every group whole: nothing was removed"]


def _with_zipped(numbers: Mapping[str, Any], before: ir.Model, after: ir.Model) -> dict[str, Any]:
    """What is said of a quantization, and the bytes of all weights in a .zip."""
    return {**numbers, "zipped_bytes": {"before": zipped_bytes(before), "after": zipped_bytes(after)}}
