"""From the document that a command prints with `--json` to its page, found by the keys that only that document has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from onnxprune.report.cut_page import cut_page
from onnxprune.report.measured_pages import alignment_page, benchmark_page, gate_page, sensitivity_page
from onnxprune.report.page import Page

_PAGES: dict[str, Callable[[Mapping[str, Any]], Page]] = {
    "recovery": cut_page,
    "settings": benchmark_page,
    "steps": alignment_page,
    "whole": sensitivity_page,
    "exit_code": gate_page,
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
    for key, build in _PAGES.items():
        if key in document:
            return build(document)
    raise ValueError(f"no page for a document with the keys {', '.join(document)}")
