"""Results of a search: the document, the table of its front, and the page."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.data.options import DataOptions
from onnxprune.pipeline.search.objectives.base import Aim
from onnxprune.report.data import FORMAT
from onnxprune.report.page import Card, Cell, Number, Page, Section, Table, counted, file_name
from onnxprune.report.scatter import Dot, Series, scatter
from onnxprune.report.tables import TextTable
from onnxprune.support.options import changed, options_of
from onnxprune.support.toml import to_toml

if TYPE_CHECKING:
    from onnxprune.pipeline.search.run import Candidate, Found

Document = Mapping[str, Any]


def search_document(found: Found, picked: Candidate | None = None) -> dict[str, Any]:
    """Every point of the front with its file, its recipe and the command that makes it again; and every candidate."""
    request = found.request
    names = [aim.text for aim in request.aims]
    return {
        "format": FORMAT,
        "kind": "search",
        "model": str(request.model) if isinstance(request.model, str | Path) else None,
        "study": found.study,
        "storage": found.storage,
        "sampler": request.options.sampler,
        "space": request.space.text,
        "objectives": [{"name": aim.text, "maximize": aim.maximize} for aim in request.aims],
        "limits": list(request.options.require),
        "front": [_point(each, found) for each in found.front],
        "picked": None if picked is None else _point(picked, found),
        "candidates": [
            {
                "trial": each.number,
                "values": {name: each.measured[name].value for name in names},
                "keeps_limits": each.feasible,
            }
            for each in found.candidates
        ],
        "pruned": found.pruned,
        "failed": [{"trial": number, "error": said} for number, said in found.failed.items()],
        "interrupted": found.interrupted,
    }


def _point(each: Candidate, found: Found) -> dict[str, Any]:
    aims = {aim.text: aim for aim in (*found.request.aims, *(limit.aim for limit in found.request.limits))}
    return {
        "trial": each.number,
        "values": {name: measured.value for name, measured in each.measured.items()},
        "amounts": {name: [measured.before, measured.after] for name, measured in each.measured.items()},
        "shown": {name: _shown(aims[name], measured) for name, measured in each.measured.items()},
        "recipe": dict(each.recipe),
        "file": None if each.file is None else str(each.file),
        "command": _command(each, found),
    }


def _shown(aim: Aim, measured: Any) -> str:
    """`0.327 (538k)`: the share of the original and the amount."""
    amount = aim.objective.show(measured.after)
    return f"{measured.value:.3f} ({amount})" if aim.objective.relative else amount


def _command(each: Candidate, found: Found) -> str | None:
    """The command that makes the point again; None where model or samples are not files."""
    request, data = found.request, found.request.sources.data
    if each.file is None or not isinstance(request.model, str | Path) or not isinstance(data, DataOptions):
        return None
    words = ["onnxprune", "compress", str(request.model), "small.onnx"]
    words += ["--recipe", str(each.file).removesuffix(".onnx") + ".recipe.toml"]
    for name, value in changed(data).items():
        words += [f"--{options_of(DataOptions)[name].flag}", str(value)]
    for name in ("calibration", "evaluation"):
        other = getattr(request.sources, name)
        words += [f"--{name}", str(other.data)] if isinstance(other, DataOptions) else []
    return shlex.join(words)


def show_search(document: Document) -> None:
    """The front in the terminal, and where the files are."""
    from onnxprune.report.terminal import console, show_sentence

    out = console()
    names = _names(document)
    if document["front"]:
        table = TextTable("trial", *(f">{name}" for name in names), "file", title=f"front of {document['study']}")
        for point in document["front"]:
            table.add_row(str(point["trial"]), *(point["shown"][name] for name in names), point["file"] or "")
        out.print(table)
    show_sentence(out, lead(document))
    if document["picked"] is not None:
        out.print(f"wrote {document['picked']['file']}, trial {document['picked']['trial']}", style="bold")


def _names(document: Document) -> list[str]:
    """The objectives, then what only limits speak of."""
    found = [each["name"] for each in document["objectives"]]
    return found + [name for point in document["front"][:1] for name in point["values"] if name not in found]


def lead(document: Document) -> str:
    """The result in one sentence."""
    tried = counted(len(document["candidates"]), "candidate")
    ended = f", {document['pruned']} ended early" if document["pruned"] else ""
    failed = f", {len(document['failed'])} failed" if document["failed"] else ""
    stopped = "interrupted: " if document["interrupted"] else ""
    return f"{stopped}{counted(len(document['front']), 'point')} on the front of {tried} measured{ended}{failed}"


def search_page(found: Document) -> Page:
    """The page of a document that `search` prints."""
    names = _names(found)
    first, second = (names * 2)[:2]
    on_front = {point["trial"] for point in found["front"]}
    others = [each for each in found["candidates"] if each["trial"] not in on_front]
    rest = tuple(Dot(each["values"][first], each["values"][second], f"trial {each['trial']}") for each in others)
    best = tuple(
        Dot(point["values"][first], point["values"][second], _title(point), f"trial-{point['trial']}")
        for point in found["front"]
    )
    picture = scatter([Series("removed", rest), Series("kept", best, joined=True)], (first, second))
    rows = tuple((f"trial {point['trial']}", *_cells(point, names), point["file"] or "") for point in found["front"])
    table = Table("Every point of the front", ("point", *(f">{name}" for name in names), "file"), rows)
    text = "No other candidate beats these in every objective. Rest on a point to see it, click for its recipe."
    legend = (("kept", "on the front"), ("removed", "beaten"))
    front = Section("front", "The front", text, (table,), picture, legend)
    return Page(
        title=f"Search of {file_name(found['model']) if found['model'] else found['study']}",
        lead=f"{lead(found)}.",
        cards=tuple(_cards(found)),
        sections=(front, *(_section(point, names) for point in found["front"]), *_failures(found)),
        request={"space": found["space"], "sampler": found["sampler"], "limits": ", ".join(found["limits"])},
    )


def _title(point: Document) -> str:
    return f"trial {point['trial']}: " + ", ".join(f"{name} {shown}" for name, shown in point["shown"].items())


def _cells(point: Document, names: list[str]) -> Iterator[Cell]:
    for name in names:
        yield Number(point["shown"][name], point["values"][name])


def _cards(found: Document) -> Iterator[Card]:
    """The best of each objective on the front."""
    for each in found["objectives"]:
        sign = -1 if each["maximize"] else 1
        points = sorted(found["front"], key=lambda point: sign * point["values"][each["name"]])
        if points:
            label = f"{'largest' if each['maximize'] else 'smallest'} {each['name']}"
            yield Card(label, points[0]["shown"][each["name"]], f"trial {points[0]['trial']}")


def _section(point: Document, names: list[str]) -> Section:
    """A point: its recipe and the command that makes it again."""
    rows: list[tuple[Cell, ...]] = [(name, point["shown"][name]) for name in names]
    rows += [("recipe", line) for line in to_toml(point["recipe"]).splitlines() if line]
    rows += [("make it again", point["command"])] if point["command"] else []
    number = point["trial"]
    table = Table(f"Trial {number}: what it is, its recipe line by line, and its command", ("", "what"), tuple(rows))
    return Section(f"trial-{number}", f"Trial {number}", tables=(table,))


def _failures(found: Document) -> Iterator[Section]:
    if found["failed"]:
        rows = tuple((f"trial {each['trial']}", each["error"]) for each in found["failed"])
        yield Section("failed", "Failed trials", tables=(Table("Why", ("trial", "why"), rows),), folded=True)
