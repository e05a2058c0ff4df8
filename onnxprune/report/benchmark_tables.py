"""A benchmark as tables for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from onnxprune.evaluation.benchmark.comparison import Comparison
from onnxprune.evaluation.benchmark.memory import PeakMemory
from onnxprune.evaluation.benchmark.profile import Mover, Profile, movers
from onnxprune.evaluation.benchmark.suite import BenchmarkResult, Measured
from onnxprune.report.tables import TextTable
from onnxprune.report.terminal import console, show_notes, show_sentence
from onnxprune.runtime.providers import short
from onnxprune.steps.prune.alignment import RATIO, Alignment
from onnxprune.support.quantities import show_bytes, show_seconds, show_share

_OPERATORS_SHOWN = 8
_MOVERS_SHOWN = 10


def show_benchmark(result: BenchmarkResult) -> None:
    """Times by setting with what they mean in words, outputs, metric, profile, notes."""
    out, labels = console(), _labels(result.models)
    for measured in result.measured:
        out.print(_times(measured, labels, result.file_bytes))
        for label, each in zip(labels[1:], measured[1:], strict=True):
            assert each.comparison is not None
            words = Text(each.comparison.words, style=_style(each.comparison))
            show_sentence(out, Text.assemble(f"{label}: ", words))
        out.print()
    if result.drift:
        out.print(_drift(result, labels))
        out.print()
    if result.quality:
        out.print(_quality(result, labels))
        out.print()
    if result.profiles:
        _show_profiles(out, result.profiles, labels)
    show_notes(out, result.notes)


def show_alignment(found: Alignment) -> None:
    """Time and parameters by multiple, and what to do."""
    out = console()
    title = f"{found.model} at ratio {RATIO:g}, axes rounded up to multiples"
    table = TextTable(">multiple", ">parameters", ">median", "against widths as they come", title=title)
    for step in found.steps:
        words = Text("") if step.comparison is None else Text(step.comparison.words, style=_style(step.comparison))
        table.add_row(str(step.round_to), f"{step.parameters:,}", show_seconds(step.latency.median), words)
    out.print(table)
    show_sentence(out, found.words, "bold")


def _labels(models: Sequence[str]) -> list[str]:
    """File names where they tell the models apart, else paths; the same file again gets a number."""
    names = [model.replace("\\", "/").rpartition("/")[2] for model in models]
    by_name = len(set(names)) == len(set(models))
    seen: Counter[str] = Counter()
    labels = []
    for label in names if by_name else models:
        seen[label] += 1
        labels.append(label if seen[label] == 1 else f"{label} ({seen[label]})")
    return labels


def _style(comparison: Comparison) -> str:
    if not comparison.real:
        return "bold"
    return "bold green" if comparison.ratio < 1 else "bold red"


def _times(measured: Sequence[Measured], labels: Sequence[str], sizes: Sequence[int]) -> TextTable:
    first = measured[0].latency
    axes = "".join(f", {name}={size}" for name, size in first.sizes.items() if size != first.setting.batch)
    threads = f"{first.setting.threads or 'default'} thread{'s' * (first.setting.threads != 1)}"
    title = f"{short(first.setting.provider)}, batch {first.setting.batch}, {threads}{axes}"
    columns = (">median", ">p90", ">p99", ">samples/s", ">load", ">memory", ">file")
    table = TextTable("model", *columns, title=title)
    for label, each, size in zip(labels, measured, sizes, strict=True):
        latency = each.latency
        loads = sorted(latency.load_seconds)
        times = (latency.median, latency.p90, latency.p99)
        row = (*map(show_seconds, times), f"{latency.throughput:,.1f}", show_seconds(loads[len(loads) // 2]))
        table.add_row(label, *row, _memory(each.memory), show_bytes(size))
    return table


def _memory(memory: PeakMemory | None) -> str:
    """The memory that the model adds: the libraries' own would make all models look alike."""
    return "-" if memory is None else show_bytes(memory.added)


def _drift(result: BenchmarkResult, labels: Sequence[str]) -> TextTable:
    title = f"outputs against {labels[0]} on {result.drift_inputs}"
    table = TextTable("model", "output", ">samples", ">cosine", ">max difference", ">same arg-max", title=title)
    for each in result.drift:
        cosine = "-" if each.cosine is None else f"{each.cosine:.6f}"
        largest = f"{each.max_difference:.3g}"
        table.add_row(
            labels[each.position], each.output, f"{each.samples:,}", cosine, largest, show_share(each.agreement)
        )
    return table


def _quality(result: BenchmarkResult, labels: Sequence[str]) -> TextTable:
    name = result.quality[0].metric
    table = TextTable("model", f">{name}", ">difference", title=f"{name} on {result.drift_inputs}")
    first = result.quality[0].value
    for label, each in zip(labels, result.quality, strict=True):
        difference = "" if each is result.quality[0] else f"{each.value - first:+.4f}"
        table.add_row(label, f"{each.value:.4f}", difference)
    return table


def _show_profiles(out: Console, profiles: Sequence[Profile], labels: Sequence[str]) -> None:
    table = TextTable("operator", *(f">{label}" for label in labels), title="where the time goes, under the profiler")
    operators = profiles[0].operators | {
        name: seconds for each in profiles[1:] for name, seconds in each.operators.items()
    }
    ranked = sorted(operators, key=lambda name: -max(each.operators.get(name, 0.0) for each in profiles))
    for name in ranked[:_OPERATORS_SHOWN]:
        table.add_row(name, *(_of_run(each.operators.get(name, 0.0), each) for each in profiles))
    table.add_row("between nodes", *(_of_run(each.between_nodes, each) for each in profiles))
    table.add_row("whole run", *(show_seconds(each.run_seconds) for each in profiles))
    out.print(table)
    out.print()
    for label, each in zip(labels[1:], profiles[1:], strict=True):
        out.print(_movers(movers(profiles[0], each), f"nodes whose time changed most: {labels[0]} to {label}"))
        out.print()


def _of_run(seconds: float, profile: Profile) -> str:
    return (
        f"{show_seconds(seconds)} {seconds / profile.run_seconds:4.0%}"
        if profile.run_seconds
        else show_seconds(seconds)
    )


def _movers(found: Sequence[Mover], title: str) -> TextTable:
    table = TextTable("node", "operator", ">before", ">after", ">change", title=title)
    for mover in found[:_MOVERS_SHOWN]:
        before, after = ("-" if each is None else show_seconds(each) for each in (mover.before, mover.after))
        sign = "-" if mover.change < 0 else "+"
        table.add_row(mover.name, mover.operator, before, after, f"{sign}{show_seconds(abs(mover.change))}")
    return table
