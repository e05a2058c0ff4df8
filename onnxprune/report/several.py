"""Results of several models: the table in the terminal, and the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from onnxprune.report.charts import bar
from onnxprune.report.page import Card, Chart, Page, Section, Table, VerdictCell, counted, file_name
from onnxprune.report.tables import TextTable

Document = Mapping[str, Any]
_COSTS = {"parameters": "parameters", "macs": "MACs", "file_bytes": "file bytes"}


def show_several(document: Document) -> None:
    """The summary: a row for each model, with the first of its metrics before and after."""
    from onnxprune.report.terminal import console

    table = TextTable("model", *(f">{label}" for label in _COSTS.values()), "quality", "written")
    for each in document["models"]:
        if each["error"]:
            table.add_row(each["model"], "", "", "", "", Text(f"failed: {each['error']}", style="red"))
            continue
        lefts = [f"{_left(each['result'], key):.1%}" for key in _COSTS]
        table.add_row(each["model"], *lefts, _quality(each["result"]), each["output"] or "dry run")
    out = console()
    out.print(table)
    out.print(_words(document), style="bold", soft_wrap=True)


def several_page(found: Document) -> Page:
    """The page of a document that `compress` prints for several models."""
    models = found["models"]
    rows = []
    for each in models:
        if each["error"]:
            rows.append((each["model"], *(Chart("", "-") for _ in _COSTS), "", VerdictCell(each["error"], "bad")))
            continue
        lefts = [_left(each["result"], key) for key in _COSTS]
        bars = [Chart(bar(1, left, 1), f"{left:.1%}", left) for left in lefts]
        rows.append((each["model"], *bars, _quality(each["result"]), VerdictCell(each["output"] or "dry run", "")))
    columns = ("model", *(f"~{label} left" for label in _COSTS.values()), "quality", "written to")
    failed = Card("failed", str(found["failed"]), f"of {len(models)}", "bad" if found["failed"] else "good")
    return Page(
        title=f"{counted(len(models), 'model')} compressed",
        lead=f"{_words(found)}.",
        cards=(failed,),
        sections=(Section("models", "Models", tables=(Table("Of each model", columns, tuple(rows)),)),),
        alert=f"{file_name(next(each['model'] for each in models if each['error']))} failed" if found["failed"] else "",
    )


def _words(document: Document) -> str:
    done = len(document["models"]) - document["failed"]
    failed = f", {document['failed']} failed" if document["failed"] else ""
    return f"{done} of {counted(len(document['models']), 'model')} compressed{failed}"


def _left(result: Document, key: str) -> float:
    before = result["before"][key]
    return float(result["after"][key] / before) if before else 1.0


def _quality(result: Document) -> str:
    quality = result["quality"]
    if not quality or not quality["scores"]:
        return "not measured"
    first = quality["scores"][0]
    before, after = first["shown"]
    return f"{first['name']} {after}" + (f" (was {before})" if before != "-" else "")
