"""The page of a cut: what `compress`, `apply` and `recover` did, from the document of `report.data.of_result`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from onnxprune.report.charts import bar, pair, spread
from onnxprune.report.flow import flow
from onnxprune.report.page import Card, Cell, Chart, Number, Page, Section, Table, asked, count, counted, file_name
from onnxprune.report.quality_page import quality_alert, quality_cards, quality_section
from onnxprune.report.quantization_page import quantization_section
from onnxprune.report.sparsity_page import sparsity_card, sparsity_section
from onnxprune.report.training_page import training_card, trainings
from onnxprune.support.quantities import show_bytes, show_count

Document = Mapping[str, Any]

_AXES_SHOWN = 40
_NO_CHANGE = 0.005
# Errors below it are shown as zero, and so nothing is left of them.
_NO_ERROR = 5e-5
# A layer is well recovered where the error is no more than this share of the variance.
_SMALL_ERROR = 0.1


def cut_page(found: Document) -> Page:
    """The page of a document that has `before` and `after`."""
    before, after = found["before"], found["after"]
    name = file_name(found["model"])
    written = f"written to {file_name(found['output'])}" if found["output"] else "not written (dry run)"
    left = [
        f"{after[key] / before[key]:.1%} of the {label}"
        for key, label in (("parameters", "parameters"), ("macs", "MACs"))
        if before[key]
    ]
    own = (_quality, _before_after, _groups, _graph, _recovery)
    made = (*own, trainings, quantization_section, sparsity_section, _scores, _frozen)
    return Page(
        title=f"{name}, {_done(found)}",
        lead=f"{' and '.join(left) or 'no weights'} left; same inputs and outputs; {written}.",
        cards=(*quality_cards(found["quality"]), *_cards(found)),
        alert=quality_alert(found["quality"]),
        sections=tuple(itertools.chain.from_iterable(make(found) for make in made)),
        notes=tuple(found["notes"]),
        request=_steps(found["recipe"]),
    )


def _steps(recipe: Document) -> dict[str, str]:
    """The steps in order, each with the options that were given."""
    steps = {f"{at}. {step['step']}": _options(step) for at, step in enumerate(recipe.get("step", ()), 1)}
    return {**asked({name: value for name, value in recipe.items() if name != "step"}), **steps}


def _options(step: Document) -> str:
    inner = [f"{each['step']} ({_options(each)})" for each in step.get("steps", ())]
    given = asked({name: value for name, value in step.items() if name not in ("step", "steps")})
    return ", ".join([*(f"{name} {value}" for name, value in given.items()), *inner]) or "as it comes"


def _done(found: Document) -> str:
    """Where no unit went, what else was done."""
    if any(group["kept"] < group["units"] for group in found["groups"]):
        return "pruned"
    if found["quantization"]:
        return "quantized"
    if found["sparsity"]:
        return "sparsified"
    if found["trainings"]:
        return "trained"
    return "recovered" if found["recovery"]["layers"] else "cleaned up"


def _cards(found: Document) -> Iterator[Card]:
    before, after = found["before"], found["after"]
    for key, label in (("parameters", "parameters"), ("macs", "MACs"), ("file_bytes", "file size")):
        old, new = before[key], after[key]
        show = show_bytes if key == "file_bytes" else show_count
        yield Card(
            label, _times(old, new), f"{show(old)} → {show(new)}", "good" if new < (1 - _NO_CHANGE) * old else ""
        )
    units = sum(group["units"] for group in found["groups"])
    left = sum(group["kept"] for group in found["groups"])
    removed = [group for group in found["groups"] if group["kept"] < group["units"]]
    if removed:
        where = f"in {len(removed)} of {counted(len(found['groups']), 'group')}"
        yield Card("units removed", f"{1 - left / units:.0%}", where)
    layers = found["recovery"]["layers"]
    if layers:
        old, new = (sum(layer[when] for layer in layers) / len(layers) for when in ("before", "after"))
        detail = f"mean of a layer, {old:.3f} before recovery"
        yield Card("error left", f"{new:.3f}", detail, "good" if new < _SMALL_ERROR else "")
    if found["sparsity"]:
        yield sparsity_card(found["sparsity"])
    if found["trainings"]:
        yield training_card(found["trainings"][-1])


def _times(old: float, new: float) -> str:
    if old and abs(new / old - 1) < _NO_CHANGE:
        return "as before"
    return f"{old / new:.2f}x smaller" if new and old >= new else f"{new / old:.2f}x larger" if new and old else "-"


def _quality(found: Document) -> Iterator[Section]:
    return quality_section(found["quality"])


def _before_after(found: Document) -> Iterator[Section]:
    at = ", ".join(f"{name}={size}" for name, size in found["macs_at"].items())
    names = {
        "parameters": "parameters",
        "macs": f"MACs{f' (at {at})' if at else ''}",
        "file_bytes": "file bytes" + (" (after: estimated)" if found["file_bytes_estimated"] else ""),
        "nodes": "nodes",
    }
    rows = []
    for key, label in names.items():
        old, new = found["before"][key], found["after"][key]
        left = Chart(bar(1, new / old if old else 1, 1), f"{new / old:.1%}" if old else "-", new / old if old else 1)
        rows.append((label, count(old), count(new), left))
    columns = ("", ">before", ">after", "~left")
    table = Table("What the model costs, as it was in the file and as it is now", columns, tuple(rows))
    yield Section("cost", "Before and after", tables=(table,))


def _groups(found: Document) -> Iterator[Section]:
    groups = found["groups"]
    if not groups:
        return
    rows = tuple(
        (
            group["id"],
            group["kind"] + (" *" if group["statistics"] else ""),
            Number(f"{group['units']:,} → {group['kept']:,}", group["units"]),
            Chart(
                bar(1, group["kept"] / group["units"], 1),
                f"{group['kept'] / group['units']:.0%}",
                group["kept"] / group["units"],
            ),
        )
        for group in groups
    )
    starred = any(group["statistics"] for group in groups)
    text = "A group is a dimension whose units are removed one by one, everywhere they occur at once."
    if starred:
        text += " * A normalization takes statistics over these units: removing some changes the values of the others."
    yield Section(
        "groups",
        "Groups",
        text,
        (
            Table("By kind", ("kind", ">groups", ">units", "~left"), tuple(_kinds(groups))),
            Table("Every group, in the order of the graph", ("group", "kind", ">units", "~left"), rows),
        ),
        legend=(("kept", "kept"), ("track", "removed")),
    )


def _kinds(groups: list[Document]) -> Iterator[tuple[Cell, ...]]:
    kinds: dict[str, list[Document]] = {}
    for group in groups:
        kinds.setdefault(group["kind"], []).append(group)
    for kind, members in sorted(kinds.items()):
        units, kept = (sum(group[key] for group in members) for key in ("units", "kept"))
        left = Chart(bar(1, kept / units, 1), f"{kept / units:.0%}", kept / units)
        yield kind, count(len(members)), Number(f"{units:,} → {kept:,}", units), left


def _scores(found: Document) -> Iterator[Section]:
    if not found["scores"]:
        return
    prune: Document = next((step for step in found["recipe"].get("step", ()) if step["step"] == "prune"), {})
    criterion = prune.get("criterion", "the criterion")
    rows = tuple(
        (
            each["id"],
            Chart(
                spread(each["kept"], each["removed"]),
                f"{each['lowest']:.3g} to {each['highest']:.3g}, median {each['median']:.3g}"
                + (", logarithmic" if each["logarithmic"] else ""),
                each["median"],
            ),
        )
        for each in found["scores"]
    )
    text = (
        f"How many units have which score by {criterion}, from the lowest of the group on the left to the highest on "
        "the right: the higher, the more a unit matters."
    )
    table = Table("Scores of every group", ("group", "~scores"), rows)
    yield Section("scores", "Scores", text, (table,), legend=(("kept", "kept"), ("removed", "removed")))


def _graph(found: Document) -> Iterator[Section]:
    stages = found["stages"]
    if not stages:
        return
    layers = [entry for entry in stages if entry["kind"] == "layer"]
    rows = tuple(
        (
            Number(str(entry["stage"]), entry["stage"]),
            entry["name"],
            entry["operator"],
            _arrow(entry["width"]),
            _arrow(entry["parameters"]),
        )
        for entry in layers
    )
    text = (
        "Layers with weights and the places where ways meet, from the inputs at the top to the outputs. The wider a "
        "box the wider the layer; the filled part is left. Activations, normalizations and reshapes are not drawn."
    )
    columns = (">stage", "layer", "operator", ">width", ">parameters")
    table = Table(f"The same as a table: {counted(len(layers), 'layer')}", columns, rows, folded=True)
    legend = (("kept", "kept"), ("track", "removed"))
    yield Section("graph", "The graph by stages", text, (table,), flow(stages), legend)


def _arrow(pair_of: list[int] | None) -> Number:
    if pair_of is None:
        return Number("-", 0)
    before, after = pair_of
    return Number(f"{before:,}" if before == after else f"{before:,} → {after:,}", before)


def _recovery(found: Document) -> Iterator[Section]:
    layers = found["recovery"]["layers"]
    if not layers:
        return
    largest = max(max(layer["before"], layer["after"]) for layer in layers)
    rows = tuple(
        (
            layer["layer"],
            Number(f"{layer['before']:.4f}", layer["before"]),
            Number(f"{layer['after']:.4f}", layer["after"]),
            Chart(
                pair(layer["before"], layer["after"], largest),
                f"{layer['after'] / layer['before']:.0%}" if layer["before"] > _NO_ERROR else "-",
                layer["after"],
            ),
        )
        for layer in layers
    )
    text = (
        "The mean squared error of each layer's output on the calibration data, over the variance of what it should "
        "be: 0 is exact, 1 is no better than a constant."
    )
    caption = f"Every layer before and after {found['recovery']['method']}"
    table = Table(caption, ("layer", ">before", ">after", "~left"), rows)
    legend = (("removed", "before"), ("kept", "after"))
    yield Section("recovery", "Recovery", text, (table,), legend=legend)


def _frozen(found: Document) -> Iterator[Section]:
    frozen, unruled = found["frozen"], found["unruled"]
    if not frozen and not unruled:
        return
    reasons: dict[tuple[str, str], list[str]] = {}
    for axis in frozen:
        name = f"{axis['tensor']}[{axis['axis']}]"
        reasons.setdefault((axis["reason"], axis["operator"] or ""), []).append(name)
    rows = tuple(
        (count(len(axes)), reason, operator or "-", _listed(axes))
        for (reason, operator), axes in sorted(reasons.items(), key=lambda item: -len(item[1]))
    )
    tables = []
    if rows:
        tables.append(Table("Axes of weights that keep their size", (">axes", "reason", "operator", "which"), rows))
    if unruled:
        counts = tuple((name, count(number)) for name, number in sorted(unruled.items()))
        caption = "Operators without a rule: the dimensions they touch keep their size"
        tables.append(Table(caption, ("operator", ">nodes"), counts))
    text = "What the cut had to leave alone, and why."
    yield Section("frozen", "Frozen dimensions", text, tuple(tables), folded=True)


def _listed(axes: list[str]) -> str:
    more = f" and {len(axes) - _AXES_SHOWN:,} more" if len(axes) > _AXES_SHOWN else ""
    return ", ".join(axes[:_AXES_SHOWN]) + more
