"""The cost of a cut in quality: cards, table and alert of its page, and the page of `evaluate`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from onnxprune.report.page import Card, Number, Page, Section, Table, file_name
from onnxprune.support.quantities import show_seconds

Document = Mapping[str, Any]


def evaluation_page(found: Document) -> Page:
    """The page of a document that `evaluate` prints."""
    quality, model = found["quality"], found["model"]
    name = file_name(found["original"])
    return Page(
        title=f"{name}, evaluated" if model is None else f"{file_name(model)} beside {name}",
        lead=f"Measured on {quality['on']}.",
        cards=tuple(quality_cards(quality)),
        alert=quality_alert(quality),
        sections=tuple(quality_section(quality)),
        notes=tuple(found["notes"]),
    )


def quality_alert(quality: Document | None) -> str:
    """That the model fell apart; empty where it did not."""
    return "" if quality is None else quality["damage"] or ""


def quality_cards(quality: Document | None) -> Iterator[Card]:
    """Each metric, then the time of a run; green is what is as good as before, red what fell apart."""
    if quality is None:
        return
    tone = "bad" if quality["damage"] else ""
    for score in quality["scores"]:
        before, after = score["shown"]
        was = f"was {before}, " if before != "-" else ""
        yield Card(score["name"], after, f"{was}on {quality['on']}", tone or _tone(score))
    latency = quality["latency"]
    if latency is not None:
        faster = latency["high"] is not None and latency["high"] < 1
        detail = f"was {show_seconds(latency['before'])}: {latency['words']}"
        yield Card("latency", show_seconds(latency["after"]), detail, "good" if faster else "")


def _tone(score: Document) -> str:
    """Green where no more than a hundredth of a share went."""
    before, after = score["before"], score["after"]
    small = score["unit"] == "%" and before is not None and after is not None and after >= before - 0.01
    return "good" if small else ""


def quality_section(quality: Document | None) -> Iterator[Section]:
    """The metrics before and after as a table."""
    if quality is None or not (quality["scores"] or quality["latency"]):
        return
    rows = [
        (
            score["name"],
            Number(score["shown"][0], score["before"] or 0.0),
            Number(score["shown"][1], score["after"] or 0.0),
            quality["on"],
        )
        for score in quality["scores"]
    ]
    latency = quality["latency"]
    if latency is not None:
        old, new = latency["before"], latency["after"]
        rows.append(("latency", Number(show_seconds(old), old), Number(show_seconds(new), new), latency["words"]))
    table = Table(
        "Metrics and the time of a run, before and after", ("", ">before", ">after", "measured on"), tuple(rows)
    )
    text = (
        "Agreement is the share of samples whose highest score is where the original has it. SNR is the power of the "
        "original's output over that of the difference from it."
    )
    yield Section("quality", "Quality", text, (table,))
