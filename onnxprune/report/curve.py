"""Recipes at several strengths: the document, the table, the page, and the picture as a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxprune.errors import UsageError
from onnxprune.pipeline.search.curves import Curves
from onnxprune.report.data import FORMAT
from onnxprune.report.page import Card, Cell, Number, Page, Section, Table, counted, file_name
from onnxprune.report.raster import as_png, check_pillow
from onnxprune.report.scatter import Dot, Series, drawing, scatter
from onnxprune.report.tables import TextTable

Document = Mapping[str, Any]
_COLOURS = ("#2f6fb7", "#d9822b", "#2e8b57", "#b4508f", "#8c6d31", "#5f9ea0", "#7b68c8", "#999999")
_STYLE = (
    "<style>text{font:12px sans-serif;fill:#555}.axis{stroke:#bbb;fill:none}.joined{fill:none;stroke-width:2}"
    + "".join(
        f"circle.part{at}{{fill:{colour}}}polyline.part{at}{{stroke:{colour};fill:none}}text.part{at}{{fill:{colour}}}"
        for at, colour in enumerate(_COLOURS)
    )
    + "</style>"
)


def curve_document(model: Path, found: Curves) -> dict[str, Any]:
    """Every point of every recipe."""
    return {
        "format": FORMAT,
        "kind": "curve",
        "model": str(model),
        "metric": found.quality,
        "whole": found.whole,
        "against": list(found.costs),
        "recipes": [
            {
                "name": name,
                "points": [
                    {"strength": each.strength, "values": dict(each.values), "error": each.error or None}
                    for each in points
                ],
            }
            for name, points in found.recipes.items()
        ],
        "interrupted": found.interrupted,
    }


def show_curve(document: Document) -> None:
    """A row for each point."""
    from onnxprune.report.terminal import console

    names = [document["metric"], *document["against"]]
    title = f"{document['metric']} of the original: {document['whole']:.4g}"
    table = TextTable("recipe", ">strength", *(f">{name}" for name in names), "", title=title)
    for recipe, point in _points(document):
        values = [f"{point['values'][name]:.4g}" if name in point["values"] else "-" for name in names]
        table.add_row(recipe, _strength(point), *values, point["error"] or "")
    console().print(table)


def _points(document: Document) -> list[tuple[str, Document]]:
    return [(recipe["name"], point) for recipe in document["recipes"] for point in recipe["points"]]


def _strength(point: Document) -> str:
    return "" if point["strength"] is None else f"{point['strength']:g}"


def curve_page(found: Document) -> Page:
    """The page of a document that `curve` prints: a picture for each cost."""
    metric, names = found["metric"], [recipe["name"] for recipe in found["recipes"]]
    legend = tuple((f"part{at % len(_COLOURS)}", name) for at, name in enumerate(names))
    sections = [
        Section(f"against-{at}", f"{metric} against {cost}", figure=_picture(found, cost), legend=legend)
        for at, cost in enumerate(found["against"])
    ]
    columns = ("recipe", ">strength", f">{metric}", *(f">{cost}" for cost in found["against"]), "why not")
    rows = tuple(_row(recipe, point, [metric, *found["against"]]) for recipe, point in _points(found))
    points = counted(len(rows), "point")
    return Page(
        title=f"Curves of {file_name(found['model'])}",
        lead=f"{points} of {counted(len(names), 'recipe')}; costs are shares of the original's.",
        cards=(Card(f"{metric} of the original", f"{found['whole']:.4g}"),),
        sections=(*sections, Section("points", "Every point", tables=(Table("As measured", columns, rows),))),
    )


def _row(recipe: str, point: Document, names: list[str]) -> tuple[Cell, ...]:
    values = [point["values"].get(name) for name in names]
    cells = [Number("-" if value is None else f"{value:.4g}", value or 0.0) for value in values]
    return recipe, Number(_strength(point) or "-", point["strength"] or 0.0), *cells, point["error"] or ""


def _picture(found: Document, cost: str) -> str:
    return scatter(_series(found, cost), (cost, found["metric"]))


def _series(found: Document, cost: str, *, named: bool = False) -> list[Series]:
    """A line for each recipe, with its name where nothing else says whose it is."""
    series = []
    for at, recipe in enumerate(found["recipes"]):
        points = [point for point in recipe["points"] if point["values"]]
        points.sort(key=lambda point: point["values"][cost])
        dots = tuple(
            Dot(
                point["values"][cost],
                point["values"][found["metric"]],
                f"{recipe['name']} {_strength(point)}: {point['values'][found['metric']]:.4g} at {cost} "
                f"{point['values'][cost]:.4g}",
            )
            for point in points
        )
        name = recipe["name"] if named else ""
        series.append(Series(f"part{at % len(_COLOURS)}", dots, joined=True, name=name))
    return series


def check_picture(target: Path | None) -> None:
    """Raises UsageError for a file that is neither SVG nor PNG, MissingExtraError for PNG without Pillow."""
    if target is not None and target.suffix.lower() not in (".svg", ".png"):
        raise UsageError(f"{target} is drawn as .svg or .png; name it so")
    if target is not None and target.suffix.lower() == ".png":
        check_pillow()


def curve_picture(found: Document, target: Path) -> bytes:
    """The picture of the first cost as the content of a file: PNG where it is called so, else SVG."""
    cost = found["against"][0]
    series, labels = _series(found, cost, named=True), (cost, found["metric"])
    if target.suffix.lower() == ".png":
        parts = {f"part{at}": colour for at, colour in enumerate(_COLOURS)}
        return as_png(drawing(series, labels), {"": "#555555", "axis": "#bbbbbb", **parts})
    return (scatter(series, labels, style=_STYLE) + "\n").encode()
