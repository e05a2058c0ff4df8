"""Analyses and results as tables for a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from onnxprune.analysis.groups import Analysis
from onnxprune.evaluation.quality import Quality
from onnxprune.pipeline.result import GroupReport, Report
from onnxprune.report import data
from onnxprune.report.tables import TextTable
from onnxprune.support.quantities import show_seconds

# Where nobody sees line ends, names are worth more than narrow lines.
_WIDTH_IN_FILES = 160
_PLACES_SHOWN = 2
_FEW_LAYERS = 4


def console() -> Console:
    """Standard output. Names of tensors are printed as they are: `[0]` and `:x:` are not markup in them."""
    width = None if _has_width() else _WIDTH_IN_FILES
    return Console(file=sys.stdout, width=width, markup=False, emoji=False, highlight=False)


def _has_width() -> bool:
    return sys.stdout.isatty() or bool(os.environ.get("COLUMNS"))


def show_sentence(out: Console, text: str | Text, style: str | None = None) -> None:
    """A sentence: between words on a new line at a terminal, on one line in a file."""
    out.print(text, style=style, soft_wrap=not _has_width())


def show_notes(out: Console, notes: Iterable[str]) -> None:
    """The notes for the user."""
    for note in notes:
        show_sentence(out, f"note: {note}", "yellow")


def show_result(report: Report, model: Path, output: Path | None, *, verbose: bool) -> None:
    """The before / after table, the groups by kind (each one when `verbose`), and what was written."""
    out = console()
    out.print(_before_after(report))
    if not (report.quantization or report.sparsity) or any(group.kept < group.units for group in report.groups):
        out.print()
        out.print(_by_group(report.groups) if verbose else _by_kind(report.groups))
    if report.errors:
        out.print()
        out.print(_recovery(report, verbose))
    if report.quantization:
        out.print()
        out.print(_quantization(report.quantization, verbose))
    if report.sparsity:
        out.print()
        out.print(_sparsity(report.sparsity, verbose))
        show_sentence(out, report.sparsity["runtimes"])
    if report.trainings:
        out.print()
        out.print(_trainings(report.trainings))
    _show_unruled(out, report.unruled)
    show_notes(out, report.notes)
    if output is None:
        out.print(f"dry run: {model} was analysed, no model was written", soft_wrap=True)
    else:
        out.print(f"wrote {output}", style="bold", soft_wrap=True)


def _before_after(report: Report) -> TextTable:
    before, after = report.before, report.after
    rows = [
        ("parameters", before.parameters, after.parameters, ""),
        ("MACs", before.macs, after.macs, _at(report.sizes)),
        ("file bytes", *report.file_bytes, "after: estimated from the weights" if report.estimated else ""),
        ("nodes", before.nodes, after.nodes, ""),
    ]
    table = TextTable("", ">before", ">after", ">left", ">smaller", "")
    for cells in _quality_rows(report.quality):
        table.add_row(*cells[:3], "", "", cells[3])
    for name, old, new, remark in rows:
        left = f"{new / old:.1%}" if old else "-"
        table.add_row(name, f"{old:,}", f"{new:,}", left, f"{old / new:.2f}x" if new else "-", remark)
    return table


def _quality_rows(quality: Quality | None) -> Iterator[tuple[str, str, str, str]]:
    """Each metric before and after, and what it was measured on; then the time of a run."""
    if quality is None:
        return
    for score in quality.scores:
        yield score.name, score.shown(score.before), score.shown(score.after), f"on {quality.on}"
    if quality.latency is not None:
        times = [show_seconds(each) for each in (quality.latency.before, quality.latency.after)]
        yield "latency", times[0], times[1], quality.latency.comparison.words


def show_quality(quality: Quality, original: Path, model: Path | None) -> None:
    """The quality of a model beside the original, or the metric of the original alone."""
    out = console()
    table = TextTable("", f">{original.name}", *([] if model is None else [f">{model.name}"]), "")
    for name, before, after, remark in _quality_rows(quality):
        table.add_row(name, before, *([] if model is None else [after]), remark)
    out.print(table)
    show_notes(out, quality.notes)


def _at(sizes: Mapping[str, int]) -> str:
    return f"at {', '.join(f'{name}={size}' for name, size in sizes.items())}" if sizes else ""


def _by_kind(groups: Iterable[GroupReport]) -> TextTable:
    kinds: dict[str, list[GroupReport]] = {}
    for group in groups:
        kinds.setdefault(group.kind, []).append(group)
    table = TextTable("kind", ">groups", ">units", ">kept", ">left", title="groups")
    for kind, members in sorted(kinds.items()):
        units, kept = sum(group.units for group in members), sum(group.kept for group in members)
        table.add_row(kind, str(len(members)), f"{units:,}", f"{kept:,}", f"{kept / units:.1%}")
    return table


def _by_group(groups: Iterable[GroupReport]) -> TextTable:
    table = TextTable("group", "kind", ">units", ">kept", ">left", title="groups")
    for group in groups:
        table.add_row(group.id, group.kind, f"{group.units:,}", f"{group.kept:,}", f"{group.kept / group.units:.1%}")
    return table


def _recovery(report: Report, verbose: bool) -> TextTable:
    """Each layer's error when `verbose`, else the mean and the worst."""
    error = "error of a layer, not of the model, relative to the variance of what it should give"
    title = f"recovery ({report.recovery}): {error}"
    table = TextTable("layer", ">before", ">after", title=title)
    errors = report.errors
    worst = max(errors, key=lambda error: error.after)
    rows = [(error.layer, error.before, error.after) for error in (errors if verbose else [worst])]
    if not verbose:
        rows[0] = (f"worst: {worst.layer}", worst.before, worst.after)
        before, after = (
            sum(values) / len(errors) for values in zip(*((e.before, e.after) for e in errors), strict=True)
        )
        rows.append((f"mean of {len(errors)}", before, after))
    for name, before, after in rows:
        table.add_row(name, f"{before:.4f}", f"{after:.4f}")
    return table


# Of a quantization, what the title does not name among what was chosen.
_BESIDE = ("type", "layers", "zipped_bytes")


def _quantization(found: Mapping[str, Any], verbose: bool) -> TextTable:
    """Each layer when `verbose`, else the noisiest and those that stay in float."""
    chosen = [f"{name.replace('_', ' ')} {value}" for name, value in found.items() if name not in _BESIDE]
    zipped = found["zipped_bytes"]
    title = f"quantized to {found['type']}" + (f" ({', '.join(chosen)})" if chosen else "")
    title += f"; weights when zipped: {zipped['before']:,} bytes before, {zipped['after']:,} after"
    table = TextTable("layer", "operator", ">bits", ">SNR", "why", title=title)
    layers = found["layers"]
    measured = [layer for layer in layers if layer["bits"] and isfinite(layer["snr"])]
    worst = min(measured, key=lambda layer: layer["snr"], default=None)
    for layer in layers:
        if verbose or not layer["bits"] or layer is worst:
            snr = f"{layer['snr']:.1f} dB" if isfinite(layer["snr"]) else "-"
            remark = "the noisiest" if layer is worst and not verbose else layer["why"]
            table.add_row(layer["layer"], layer["operator"], str(layer["bits"] or "float"), snr, remark)
    if not verbose and measured:
        mean = sum(layer["snr"] for layer in measured) / len(measured)
        table.add_row(f"mean of {len(measured)}", "", "", f"{mean:.1f} dB", "")
    return table


def _sparsity(found: Mapping[str, Any], verbose: bool) -> TextTable:
    """Each layer when `verbose`, else the densest and the sparsest; then all together, and bytes when zipped."""
    chosen = [f"{name} {found[name]}" for name in ("pattern", "criterion", "allocation", "update") if found[name]]
    zipped = found["zipped_bytes"]
    bytes_left = f"weights when zipped: {zipped['before']:,} bytes before, {zipped['after']:,} after"
    table = TextTable("layer", ">weights", ">zeros", ">sparsity", title=f"zeros ({', '.join(chosen)}); {bytes_left}")
    layers = sorted(found["layers"], key=lambda layer: layer["zeros"] / max(layer["weights"], 1))
    shown = found["layers"] if verbose or len(layers) < _FEW_LAYERS else (layers[0], layers[-1])
    for layer in shown:
        _add_sparsity(table, layer["layer"], layer["weights"], layer["zeros"])
    if len(layers) > 1:
        weights, zeros = (sum(layer[name] for layer in layers) for name in ("weights", "zeros"))
        _add_sparsity(table, f"all {len(layers)}", weights, zeros)
    return table


def _add_sparsity(table: TextTable, name: str, weights: int, zeros: int) -> None:
    table.add_row(name, f"{weights:,}", f"{zeros:,}", f"{zeros / max(weights, 1):.1%}")


def _trainings(trainings: Iterable[Mapping[str, Any]]) -> TextTable:
    """Every training: loss and metric on samples that were kept apart, before and with the weights that were kept."""
    table = TextTable("training", ">updates", "measured in", ">before", ">after", ">best at")
    for number, training in enumerate(trainings, 1):
        start, best = training["start"], training["best"]
        rows = [("loss", f"{start['loss']:.4g}", f"{best['loss']:.4g}")]
        if training["metric"] is not None:
            old, new = ("-" if each["metric"] is None else f"{each['metric']:.4f}" for each in (start, best))
            rows.append((training["metric"], old, new))
        for at, (name, old, new) in enumerate(rows):
            where = ("", "") if at else (str(number), f"{training['updates']:,}")
            table.add_row(*where, name, old, new, "" if at else f"{best['update']:,}")
    return table


def show_analysis(analysis: Analysis, model: Path, *, every_frozen: bool, verbose: bool) -> None:
    """The groups, what is frozen and why (each axis when `every_frozen`), and what else a person should know."""
    found, out = data.of_analysis(analysis, model), console()
    cost, sizes = found["cost"], _at(found["macs_at"])
    out.print(model, style="bold", soft_wrap=True)
    show_sentence(
        out,
        f"{cost['parameters']:,} parameters, {cost['macs']:,} MACs {f'({sizes})' if sizes else ''}, "
        f"{cost['file_bytes']:,} bytes, {_count(cost['nodes'], 'node')}".replace(" ,", ","),
    )
    show_sentence(out, f"dynamic axes: {', '.join(found['dynamic_axes']) or 'none'}")
    out.print()
    out.print(_groups(found["groups"], verbose) if found["groups"] else Text("no group can be pruned"))
    if found["frozen"]:
        out.print()
        out.print(_every_frozen(found["frozen"]) if every_frozen else _frozen_by_reason(found["frozen"]))
    _show_unruled(out, found["unruled"])
    metadata = found["metadata"]
    if metadata["items"]:
        carriers = _count(metadata["items"], "node or value carries", "nodes and values carry")
        paths = ", with paths of files on its author's machine" if metadata["local_paths"] else ""
        show_sentence(
            out, f"\n{carriers} metadata of the exporter{paths}; compress drops it unless --keep-metadata is given"
        )


def _groups(groups: list[dict[str, Any]], verbose: bool) -> TextTable:
    statistics = any(group["statistics"] for group in groups)
    remark = "* a normalization takes statistics over these units: removing some changes the values of the others"
    title = f"{_count(len(groups), 'group')} can be pruned"
    table = TextTable(
        "group",
        "kind",
        ">units",
        ">parameters",
        ">MACs",
        "occurs in",
        title=title,
        caption=remark if statistics else None,
    )
    for group in groups:
        places = [f"{place['tensor']}[{place['axis']}]" for place in group["occurrences"]]
        shown = places if verbose else places[:_PLACES_SHOWN]
        more = f" +{len(places) - len(shown)} more" if len(places) > len(shown) else ""
        table.add_row(
            group["id"],
            group["kind"] + (" *" if group["statistics"] else ""),
            f"{group['units']:,}",
            f"{group['parameters']:,}",
            f"{group['macs']:,}",
            ", ".join(shown) + more,
        )
    return table


def _frozen_by_reason(frozen: list[dict[str, Any]]) -> TextTable:
    reasons: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for axis in frozen:
        reasons.setdefault((axis["reason"], axis["operator"] or ""), []).append(axis)
    table = TextTable(">axes", "reason", "operator", "for example", title=_frozen_title(frozen))
    for (reason, operator), axes in sorted(reasons.items(), key=lambda item: -len(item[1])):
        table.add_row(f"{len(axes):,}", reason, operator, _axis_name(axes[0]))
    return table


def _frozen_title(frozen: list[dict[str, Any]]) -> str:
    axes = {(axis["tensor"], axis["axis"]) for axis in frozen}
    return f"{_count(len(axes), 'weight axis', 'weight axes')} cannot be cut, or not in every part"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _every_frozen(frozen: list[dict[str, Any]]) -> TextTable:
    table = TextTable("axis", ">size", "reason", "operator", "node", title=_frozen_title(frozen))
    for axis in frozen:
        table.add_row(_axis_name(axis), str(axis["size"]), axis["reason"], axis["operator"] or "", axis["node"] or "")
    return table


def _axis_name(axis: Mapping[str, Any]) -> str:
    return f"{axis['tensor']}[{axis['axis']}]"


def _show_unruled(out: Console, unruled: Mapping[str, int]) -> None:
    if unruled:
        counts = ", ".join(f"{operator} ({count})" for operator, count in sorted(unruled.items()))
        show_sentence(out, f"\noperators without a rule, whose dimensions keep their size: {counts}")
