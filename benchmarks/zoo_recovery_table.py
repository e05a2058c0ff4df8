"""The tables of `zoo_recovery.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

# Less than this lies between two draws of the inputs.
SAME_DB = 0.5


def to_markdown(rows: Sequence[Any], zoo: Sequence[str]) -> str:
    plain = [row for row in rows if row.case == "default"]
    others = [row for row in rows if row.case != "default"]
    missing = [name for name in zoo if name not in {row.model for row in plain}]
    parts = [_head(plain), _models(plain), _missing(missing), _cases(others), _failures(others)]
    return "\n".join(line for part in parts for line in part) + "\n"


def _head(rows: Sequence[Any]) -> list[str]:
    counts = Counter(row.outcome for row in rows)
    both = [row for row in rows if row.cut is not None and row.recovered is not None]
    better = sum(row.recovered > row.cut + SAME_DB for row in both)
    worse = [row for row in both if row.recovered < row.cut - SAME_DB]
    alike = len(both) - better - len(worse)
    done = [row for row in rows if row.outcome == "ok"]
    before, after = _median(row.cut for row in both), _median(row.recovered for row in both)
    seconds, megabytes = [row.seconds for row in done], [row.megabytes for row in done]
    return [
        "# Recovery over the zoo",
        "",
        "`python benchmarks/zoo_recovery.py`: every model of the zoo, made-up inputs, random weights. The SNR of the",
        "outputs beside the original on other inputs, as cut and recovered, says whether recovery does harm, not how",
        "good a trained model would be; 999 represents equal outputs. Rows are kept from run to run (`--again`",
        "measures anew), so they may be of different commits. Those of CIFAR-10 and under `real` are trained.",
        "",
        "## Default: `obs`, ratio 0.5, `reconstruct`, 16 samples",
        "",
        f"{len(rows)} models tried: " + ", ".join(f"{count} {name}" for name, count in counts.most_common()) + ".",
        f"Of {len(both)} with an SNR {better} are better with recovery, {alike} alike (within {SAME_DB} dB), "
        f"{len(worse)} worse{_names(worse)}.",
        f"Medians: {before} dB as cut, {after} dB recovered; "
        f"{_median(seconds)} s of CPU, {_median(megabytes)} MB; most: {max(seconds, default=0):.0f} s, "
        f"{max(megabytes, default=0):.0f} MB.",
        "",
    ]


def _names(rows: Iterable[Any]) -> str:
    listed = ", ".join(f"{row.model} ({row.recovered - row.cut:+.1f})" for row in rows)
    return f": {listed}" if listed else ""


def _median(values: Iterable[float]) -> str:
    found = list(values)
    return f"{median(found):.1f}" if found else "-"


def _number(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _models(rows: Sequence[Any]) -> list[str]:
    return [
        "| model | | as cut, dB | recovered, dB | parameters left | CPU s | MB | |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {row.model} | {row.outcome} | {_number(row.cut)} | {_number(row.recovered)} "
            f"| {_number(row.parameters, 3)} | {row.seconds:.1f} | {row.megabytes:.0f} | {_plain(row)} |"
            for row in rows
        ),
        "",
    ]


def _missing(names: Sequence[str]) -> list[str]:
    return [f"Not measured, for want of time: {len(names)} models: {', '.join(names)}.", ""] if names else []


def _plain(row: Any) -> str:
    return "; ".join(filter(None, [row.reason, *row.remarks])).replace("|", "/").replace("\n", " ")


def _cases(rows: Sequence[Any]) -> list[str]:
    lines = [
        "## Every option on a spread of models",
        "",
        "| case | models | ok | refused | others | as cut, dB | recovered, dB | CPU s, median | most |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case in dict.fromkeys(row.case for row in rows):
        own = [row for row in rows if row.case == case]
        counts = Counter(row.outcome for row in own)
        rest = ", ".join(f"{count} {name}" for name, count in counts.items() if name not in ("ok", "refused"))
        lines.append(
            f"| {case} | {len(own)} | {counts['ok']} | {counts['refused'] or ''} | {rest} "
            f"| {_median(row.cut for row in own if row.cut is not None)} "
            f"| {_median(row.recovered for row in own if row.recovered is not None)} "
            f"| {_median(row.seconds for row in own)} | {max(row.seconds for row in own):.1f} |"
        )
    return [*lines, ""]


def _failures(rows: Sequence[Any]) -> list[str]:
    failed = [row for row in rows if row.outcome != "ok"]
    if not failed:
        return []
    lines = (f"| {row.case} | {row.model} | {row.outcome} | {_plain(row)} |" for row in failed)
    return ["What did not come out:", "", "| case | model | | why |", "|---|---|---|---|", *lines]
