"""The tables of `peers.py`: what came out, how long it took, and how much memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from peer_tools import OURS, PEERS, RATIO


@dataclass
class Outcome:
    """The best figures of one tool on one network over all rounds; seconds are pairs of wall and processor."""

    error: str = ""
    note: str = ""
    prune: tuple[float, float] = (math.inf, math.inf)
    file: tuple[float, float] = (math.inf, math.inf)
    base: float = math.inf
    peak: float = math.inf
    parameters: int = 0
    bytes: int = 0

    def add(self, found: dict[str, Any]) -> None:
        """Take in one round."""
        self.error = found.get("error") or found.get("invalid") or ""
        self.note = found.get("note", "")
        for name in ("prune", "file"):
            pairs = [getattr(self, name), *found.get(name, ())]
            setattr(self, name, tuple(min(pair[clock] for pair in pairs) for clock in (0, 1)))
        for name in ("base", "peak"):
            setattr(self, name, min(getattr(self, name), found.get(name, math.inf)))
        self.parameters = found.get("parameters", self.parameters)
        self.bytes = found.get("bytes", self.bytes)


Results = dict[str, dict[str, Outcome]]


def coverage_table(titles: dict[str, str], results: Results, tools: list[str]) -> Iterator[str]:
    yield from header("network", "parameters, millions", *tools)
    for name, rows in results.items():
        before = rows["original"].parameters
        cells = []
        for tool in (OURS, *PEERS):
            row = rows.get(tool)
            cells.append("not installed" if row is None else "fails" if row.error else f"{row.parameters / before:.3f}")
        yield line(titles[name], f"{before / 1e6:.2f}", *cells)


def seconds_table(titles: dict[str, str], results: Results, part: str) -> Iterator[str]:
    ratios = [text for tool in PEERS for text in (f"{tool} / {OURS}", "by CPU time")]
    yield from header("network", OURS, *PEERS, *ratios)
    for name, rows in results.items():
        mine = getattr(rows[OURS], part)
        cells, beside = [number(mine[0])], []
        for tool in PEERS:
            pair = getattr(rows.get(tool, Outcome()), part)
            cells.append(number(pair[0]))
            beside += [ratio(pair[0], mine[0]), ratio(pair[1], mine[1])]
        yield line(titles[name], *cells, *beside)


def memory_table(titles: dict[str, str], results: Results) -> Iterator[str]:
    yield from header("network", "file, MB", OURS, *PEERS, *(f"{tool} / {OURS}" for tool in PEERS))
    for name, rows in results.items():
        peaks = [rows.get(tool, Outcome()) for tool in (OURS, *PEERS)]
        cells = [megabytes(row) for row in peaks]
        beside = [ratio(row.peak, peaks[0].peak) for row in peaks[1:]]
        yield line(titles[name], f"{rows['original'].bytes / 1e6:.0f}", *cells, *beside)


def header(*cells: str) -> tuple[str, str]:
    return line(*cells), "|---" * len(cells) + "|"


def line(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def number(value: float) -> str:
    return f"{value:.2f}" if value < math.inf else ""


def megabytes(row: Outcome) -> str:
    return f"{row.peak / 1e6:.0f} ({(row.peak - row.base) / 1e6:.0f})" if row.peak < math.inf else ""


def ratio(theirs: float, mine: float) -> str:
    return f"{theirs / mine:.1f}" if theirs < math.inf and mine < math.inf else ""


def summary(results: Results, tools: list[str]) -> Iterator[str]:
    """The outcome of the comparison, in one line for each peer."""
    mine = {name: rows[OURS] for name, rows in results.items()}
    yield f"- {OURS}: valid on {sum(not row.error for row in mine.values())} of {len(mine)}."
    for tool in PEERS:
        if tool not in tools:
            yield f"- {tool}: not installed."
            continue
        both = [(mine[n], rows[tool]) for n, rows in results.items() if not rows[tool].error and not mine[n].error]
        valid = sum(not rows[tool].error for rows in results.values())
        text = f"- {tool}: valid on {valid} of {len(results)}"
        if both:
            deeper = sum(peer.parameters < own.parameters * 0.99 for own, peer in both)
            text += f", more than 1% fewer parameters than {OURS} on {deeper}"
            for part, what, aim in (("prune", "analysis, scores and removal", 5), ("file", "weights to file", 10)):
                times = [getattr(peer, part)[0] / getattr(own, part)[0] for own, peer in both]
                text += (
                    f"; {what}: its time over ours {min(times):.1f} to {max(times):.1f}, median {median(times):.1f}, "
                    f"at least {aim} on {sum(value >= aim for value in times)} of {len(times)}"
                )
        yield text + "."


def to_markdown(titles: dict[str, str], results: Results, tools: list[str], context: str) -> str:
    exported = ", ".join(f"{name} {rows['original'].file[0]:.1f}" for name, rows in results.items())
    parts = [
        ["# onnxprune beside its peers", "", f"L1 at ratio {RATIO}. {context}", ""],
        summary(results, tools),
        ["", "## Parameters left in the pruned file", ""],
        coverage_table(titles, results, [OURS, *PEERS]),
        ["", *messages(titles, results), "## Seconds for analysis, scores and removal", ""],
        ["onnxprune and onnxsim: from opening the file. torch-pruning: from the module in memory.", ""],
        seconds_table(titles, results, "prune"),
        ["", "## Seconds from weights to a pruned ONNX file", ""],
        ["onnxprune: with its verification, which the others do not have. torch-pruning: with `torch.onnx.export`."],
        [""],
        seconds_table(titles, results, "file"),
        ["", "Who starts from torch has to export the original first, for onnxprune and onnxsim alike. Seconds:", ""],
        [exported + ".", "", "## Peak memory to the pruned file, MB", ""],
        ["Of a process of its own; in brackets without what the imports of the tool take.", ""],
        memory_table(titles, results),
    ]
    return "\n".join(text for part in parts for text in part) + "\n"


def messages(titles: dict[str, str], results: Results) -> Iterator[str]:
    for name, rows in results.items():
        for tool, row in rows.items():
            if row.error or row.note:
                yield f"- {tool}, {titles[name]}: {row.error or row.note}"
    yield ""
