"""From the document that a command prints with `--json` to its page, by its kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from onnxprune.report.curve import curve_page
from onnxprune.report.cut_page import cut_page
from onnxprune.report.measured_pages import alignment_page, benchmark_page, gate_page, sensitivity_page
from onnxprune.report.page import Page
from onnxprune.report.quality_page import evaluation_page
from onnxprune.report.search import search_page
from onnxprune.report.several import several_page

_PAGES: dict[str, Callable[[Mapping[str, Any]], Page]] = {
    "result": cut_page,
    "results": several_page,
    "evaluation": evaluation_page,
    "benchmark": benchmark_page,
    "alignment": alignment_page,
    "sensitivity": sensitivity_page,
    "gate": gate_page,
    "search": search_page,
    "curve": curve_page,
}


@dataclass(frozen=True)
class Origin:
    """How a report came about; it is printed as it is, and nothing else in a report depends on time or machine.

    Attributes:
        command: the command line.
        versions: of what the result depends on, by package.
        seed: of everything random; None where nothing was.
    """

    command: str
    versions: Mapping[str, str]
    seed: int | None = None


def page_of(document: Mapping[str, Any]) -> Page:
    """The page of a document. Raises ValueError for one that no command prints."""
    kind = document.get("kind")
    if kind not in _PAGES:
        raise ValueError(f"no page for a document of kind {kind!r}")
    return _PAGES[kind](document)
