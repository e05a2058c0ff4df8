"""The pages of what was measured: benchmarks, roundings, sensitivity curves, and the verdict of the gate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Any

from onnxprune.report.charts import curve, distribution, shares
from onnxprune.report.page import (
    Card,
    Cell,
    Chart,
    Number,
    Page,
    Section,
    Table,
    VerdictCell,
    asked,
    count,
    counted,
    file_name,
    maybe,
)
from onnxprune.support.quantities import show_bytes, show_seconds, show_share

Document = Mapping[str, Any]

_MOVERS_SHOWN = 15
_OPERATORS_SHOWN = 7
# The slowest runs say what else the machine did, and would squeeze the rest into a line.
_SHOWN_UP_TO = 95


def benchmark_page(found: Document) -> Page:
    """The page of a document of `benchmark.document.of_benchmark`."""
    labels = _labels([model["path"] for model in found["models"]])
    first = found["settings"][0]
    compared = [each["comparison"] for each in first["models"][1:]]
    said = [f"{label}: {each['words']}" for label, each in zip(labels[1:], compared, strict=True)]
    sections = [_setting(setting, found, labels) for setting in found["settings"]]
    sections += [*_drift(found, labels), *_quality(found, labels), *_profile(found, labels)]
    return Page(
        title=f"Benchmark of {labels[0]}" + (f" and {counted(len(labels) - 1, 'other')}" if len(labels) > 1 else ""),
        lead=("; ".join(said) or f"{show_seconds(first['models'][0]['median'])} a run") + f" ({_title(first)}).",
        cards=tuple(_cards(found, labels)),
        sections=tuple(sections),
        notes=tuple(found["notes"]),
        request=asked(found["request"]),
    )


def _labels(paths: Sequence[str]) -> list[str]:
    """File names where they tell the models apart, else paths; the same file again gets a number."""
    names = [file_name(path) for path in paths]
    seen: Counter[str] = Counter()
    labels = []
    for label in names if len(set(names)) == len(set(paths)) else paths:
        seen[label] += 1
        labels.append(label if seen[label] == 1 else f"{label} ({seen[label]})")
    return labels


def _title(setting: Document) -> str:
    provider = setting["provider"].removesuffix("ExecutionProvider")
    axes = "".join(f", {name}={size}" for name, size in setting["sizes"].items() if size != setting["batch"])
    threads = counted(setting["threads"], "thread") if setting["threads"] else "default threads"
    return f"{provider}, batch {setting['batch']}, {threads}{axes}"


def _cards(found: Document, labels: Sequence[str]) -> Iterator[Card]:
    for setting in found["settings"][:3]:
        for label, each in list(zip(labels, setting["models"], strict=True))[1:3]:
            against = each["comparison"]
            tone = "" if not against["real"] else "good" if against["ratio"] < 1 else "bad"
            value = f"{1 / against['ratio']:.2f}x as fast" if against["real"] else "no real difference"
            detail = against["words"].removeprefix("no real difference").strip(" ():")
            yield Card(f"{label}, batch {setting['batch']}", value, detail, tone)
    sizes = [model["file_bytes"] for model in found["models"]]
    for label, size in list(zip(labels, sizes, strict=True))[1:3]:
        detail = f"{show_bytes(sizes[0])} → {show_bytes(size)}"
        yield Card(f"size of {label}", f"{size / sizes[0]:.1%}", detail, "good" if size < sizes[0] else "")
    if len(labels) == 1:
        measured = found["settings"][0]["models"][0]
        yield Card("median", show_seconds(measured["median"]), f"p99 {show_seconds(measured['p99'])}")
        yield Card("throughput", f"{measured['throughput']:,.0f}", "samples per second")
        yield Card("size", show_bytes(sizes[0]))
    for each in found["metric"][:3]:
        yield Card(f"{each['metric']} of {file_name(each['model'])}", maybe(each["value"], "{:.4f}".format).text)


def time_axis(percentiles: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Where the axis of times begins and ends, from percentiles 0 to 100 of each model: around the medians.

    A busy machine has runs that take many times as long; they would leave all medians at the left edge.
    """
    low = min(each[0] for each in percentiles)
    middle = max(each[50] for each in percentiles)
    return low, min(max(each[_SHOWN_UP_TO] for each in percentiles), low + 2 * (middle - low))


def _setting(setting: Document, found: Document, labels: Sequence[str]) -> Section:
    models = setting["models"]
    low, high = time_axis([each["percentiles"] for each in models])
    spread, rows = [], []
    for label, each, model in zip(labels, models, found["models"], strict=True):
        times = tuple(maybe(each[key], show_seconds) for key in ("median", "p90", "p99"))
        quartiles = f"middle half {show_seconds(each['percentiles'][25])} to {show_seconds(each['percentiles'][75])}"
        spread.append((label, Chart(distribution(each["percentiles"], (low, high)), quartiles, each["median"])))
        others = (
            maybe(each["throughput"], "{:,.1f}".format),
            maybe(each["load"], show_seconds),
            maybe(each["memory"]["added"] if each["memory"] else None, show_bytes),
            maybe(model["file_bytes"], show_bytes),
        )
        words = each["comparison"]["words"] if each["comparison"] else "what the others are compared with"
        rows.append((label, *times, *others, words))
    columns = ("model", ">median", ">p90", ">p99", ">samples/s", ">load", ">memory", ">file", "compared")
    rounds = f"{models[0]['rounds']:,} rounds in {counted(models[0]['sessions'], 'session')}"
    ends = f"from {show_seconds(low)} on the left to {show_seconds(high)} on the right, slower runs left out"
    caption = f"How the times of a run are spread, {ends}; the line is the median"
    return Section(
        f"setting-{setting['provider']}-{setting['batch']}-{setting['threads']}",
        _title(setting),
        f"{rounds}, the models in turns.",
        (Table(caption, ("model", "~times"), tuple(spread)), Table("In numbers", columns, tuple(rows))),
    )


def _drift(found: Document, labels: Sequence[str]) -> Iterator[Section]:
    outputs = found["drift"]["outputs"]
    if not outputs:
        return
    rows = tuple(
        (
            labels[each["position"]],
            each["output"],
            count(each["samples"]),
            maybe(each["cosine"], "{:.6f}".format),
            maybe(each["max_difference"], "{:.3g}".format),
            maybe(each["agreement"], show_share),
        )
        for each in outputs
    )
    columns = ("model", "output", ">samples", ">cosine", ">max difference", ">same arg-max")
    table = Table(f"Against {labels[0]} on {found['drift']['inputs']}", columns, rows)
    yield Section("drift", "How far apart the outputs are", tables=(table,))


def _quality(found: Document, labels: Sequence[str]) -> Iterator[Section]:
    values = found["metric"]
    if values:
        name = values[0]["metric"]
        rows = tuple((label, maybe(each["value"], "{:.4f}".format)) for label, each in zip(labels, values, strict=True))
        table = Table(f"{name} on {found['drift']['inputs']}", ("model", f">{name}"), rows)
        yield Section("metric", f"Metric: {name}", tables=(table,))


def _profile(found: Document, labels: Sequence[str]) -> Iterator[Section]:
    profile = found["profile"]
    if not profile:
        return
    models = profile["models"]
    totals: Counter[str] = Counter()
    for model in models:
        totals.update(model["operators"])
    shown = [name for name, _ in sorted(totals.items(), key=lambda item: -item[1])[:_OPERATORS_SHOWN]]
    rows = tuple(
        (
            label,
            Number(show_seconds(model["run"]), model["run"]),
            Chart(shares({name: model["operators"].get(name, 0.0) for name in shown}, model["run"]), _top(model)),
        )
        for label, model in zip(labels, models, strict=True)
    )
    caption = "Where the time of a run goes, under the profiler; pale: other operators, and between nodes"
    tables = [Table(caption, ("model", ">run", "~operators"), rows)]
    for label, moved in zip(labels[1:], profile["movers"], strict=True):
        changes = tuple(
            (
                node["name"],
                node["operator"],
                *(maybe(node[key], show_seconds) for key in ("before", "after")),
                Number(f"{'-' if node['change'] < 0 else '+'}{show_seconds(abs(node['change']))}", node["change"]),
            )
            for node in moved["nodes"][:_MOVERS_SHOWN]
        )
        columns = ("node", "operator", ">before", ">after", ">change")
        tables.append(Table(f"Nodes whose time changed most, {labels[0]} to {label}", columns, changes))
    legend = tuple((f"part{number}", name) for number, name in enumerate(shown))
    yield Section("profile", "Profile by node", tables=tuple(tables), legend=legend)


def _top(model: Document) -> str:
    """The operators that take most."""
    run = model["run"] or 1.0
    most = sorted(model["operators"].items(), key=lambda item: -item[1])[:3]
    return ", ".join(f"{name} {seconds / run:.0%}" for name, seconds in most)


def alignment_page(found: Document) -> Page:
    """The page of a document of `benchmark.alignment.of_alignment`."""
    largest = max(step["median"] for step in found["steps"])
    rows = tuple(
        (
            Number(str(step["round_to"]), step["round_to"]),
            count(step["parameters"]),
            Chart(shares({"": step["median"]}, largest), show_seconds(step["median"]), step["median"]),
            step["comparison"]["words"] if step["comparison"] else "widths as they come",
        )
        for step in found["steps"]
    )
    caption = f"Pruned at ratio {found['ratio']:g}, axes rounded up to multiples"
    table = Table(caption, (">multiple", ">parameters", "~median", "against widths as they come"), rows)
    return Page(
        title=f"Roundings of {file_name(found['model'])}",
        lead=f"{found['words'][0].upper()}{found['words'][1:]}.",
        cards=(Card("best rounding", str(found["best"]), "as they come" if found["best"] == 1 else "--round-to"),),
        sections=(Section("steps", "Time by rounding", tables=(table,)),),
        request=asked(found["setting"]),
    )


def sensitivity_page(found: Document) -> Page:
    """The page of the document of `onnxprune sensitivity`."""
    groups, whole = found["groups"], found["whole"]
    finite = [value for group in groups for value in group["values"] if value is not None and isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    sign = 1 if found["higher_is_better"] else -1

    def worst(group: Document) -> float:
        values = [value for value in group["values"][1:] if value is not None and isfinite(value)]
        return min((sign * value for value in values), default=sign * (whole or 0.0))

    rows = tuple(
        (group["id"], group["kind"], count(group["units"]), _curve(group, low, high, worst(group))) for group in groups
    )
    how = "" if found["recover"] == "none" else f" and the rest is recovered ({found['recover']})"
    text = (
        f"{found['metric']} on {counted(found['samples'], 'sample')} when the weakest units of one group alone are "
        f"removed{how}: none on the left, all on the right. "
        f"All curves share one scale, from {low:.4g} at the bottom to {high:.4g} at the top; "
        f"{'more' if sign > 0 else 'less'} is better."
    )
    ranked = sorted(groups, key=worst)
    ends = [("hurts most", ranked[0]), ("hurts least", ranked[-1])] if groups else []
    columns = ("group", "kind", ">units", f"~{found['metric']}")
    return Page(
        title=f"Sensitivity of {file_name(found['model'])}",
        lead=f"What cutting each of {counted(len(groups), 'group')} alone does to {found['metric']} of the outputs.",
        cards=(
            Card(f"{found['metric']} when whole", _shown(whole)),
            *(Card(label, _shown(sign * worst(group)), group["id"]) for label, group in ends),
        ),
        sections=(
            Section("curves", "Curves", text, (Table("Every group, in the order of the graph", columns, rows),)),
            Section("values", "Values", "", tuple(_values(groups)), folded=True),
        ),
    )


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _curve(group: Document, low: float, high: float, worst: float) -> Chart:
    points = [
        (lost / group["units"], (value - low) / ((high - low) or 1.0))
        for lost, value in zip(group["lost"], group["values"], strict=True)
        if value is not None and isfinite(value)
    ]
    last = f"{_shown(group['values'][-1])} without {group['lost'][-1]:,}"
    return Chart(curve(points), last, worst)


def _values(groups: Sequence[Document]) -> Iterator[Table]:
    rows: list[tuple[Cell, ...]] = []
    for group in groups:
        for lost, value in zip(group["lost"], group["values"], strict=True):
            rows.append((group["id"], count(lost), Number(_shown(value), value or 0.0)))
    yield Table("Every point", ("group", ">units removed", ">value"), tuple(rows))


def gate_page(found: Document) -> Page:
    """The page of a document of `gate.formats.to_dict`."""
    words = {"ok": "budgets held", "broken": "broken", "unchecked": "could not be checked", "new": "not compared yet"}
    counts = Counter(check["status"] for model in found["models"] for check in model["checks"])
    tones = {"ok": "good", "broken": "bad", "unchecked": "bad"}
    cards = tuple(
        Card(words[status], str(counts[status]), "", tones.get(status, "") if counts[status] else "")
        for status in words
        if counts[status] or status in ("ok", "broken")
    )
    columns = ("budget", "verdict", "found", "allowed", "note")

    def row(check: Document) -> tuple[Cell, ...]:
        said = "held" if check["status"] == "ok" else words[check["status"]]
        verdict = VerdictCell(said, tones.get(check["status"], ""))
        return check["budget"], verdict, check["shown"], check["limit"], check["note"]

    sections = tuple(
        Section(
            f"model-{number}",
            model["model"],
            tables=(Table(f"Budgets of {file_name(model['model'])}", columns, tuple(map(row, model["checks"]))),),
        )
        for number, model in enumerate(found["models"], 1)
    )
    broken = counts["broken"]
    lead = f"{counted(broken, 'budget is', 'budgets are')} broken" if broken else "no budget is broken"
    if counts["unchecked"]:
        lead += f", {counts['unchecked']} could not be checked"
    updated = (f"wrote {found['updated']}",) if found["updated"] else ()
    title = f"Gate: {counted(len(found['models']), 'model')}"
    return Page(title, f"{lead[0].upper()}{lead[1:]}.", cards, sections, updated)
