"""Shared by the benchmarks of exports: a network taken all the way, and the page of results, section by section."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import onnxprune as op

Made = tuple[Any, Any]  # a network and example inputs
HEAD = ("| network | exporter | difference | parameters | left | seconds |", "|---|---|---|---|---|---|")


def tried(name: str, made: Made, **options: Any) -> tuple[str, bool]:
    """A row of the table, and whether the network came all the way."""
    start = time.perf_counter()
    try:
        found = op.export(*made, **options)
        result = op.compress(found.model, ratio=0.5, recover="none")
        with tempfile.TemporaryDirectory() as folder:
            result.save(Path(folder) / "small.onnx")
    except op.OnnxpruneError as error:
        return f"| {name} | {type(error).__name__}: {error} | | | | |", False
    before, after = result.report.before.parameters, result.report.after.parameters
    worst = max(check.difference or 0.0 for check in found.checks)
    left = f"{before:,.0f} | {after / before:.0%} | {time.perf_counter() - start:.0f}"
    return f"| {name} | {found.exporter} | {worst:.0e} | {left} |", after < before


def all_tried(networks: Iterable[tuple[str, Callable[[], Made], dict[str, Any]]]) -> tuple[list[str], str]:
    """The rows for networks, each with how it is made and exported; and in words how many came all the way."""
    rows, done = [], 0
    for name, make, options in networks:
        row, well = tried(name, make(), **options)
        done += well
        rows.append(row)
        print(row, flush=True)
    said = f"{done} of {len(rows)} networks were exported, verified at two sizes and compressed at 0.5."
    print(said)
    return rows, said


def put_section(path: Path, title: str, lines: list[str]) -> None:
    """Put `## title` with these lines into a page, in place of what it had under this title."""
    sections = path.read_text().split("\n## ") if path.exists() else ["# Networks exported and compressed\n"]
    text = "\n".join((title, "", *lines, ""))
    at = next((at for at, each in enumerate(sections) if each.startswith(f"{title}\n")), len(sections))
    sections[at:] = [text, *sections[at + 1 :]]
    path.write_text("\n## ".join(each.strip("\n") + "\n" for each in sections))
