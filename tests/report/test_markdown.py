"""The report for pull requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from onnxprune.report.markdown import markdown
from onnxprune.report.pages import Origin, page_of
from tests.report import documents

ORIGIN = Origin("onnxprune compress model.onnx", {"onnxprune": "0.1.0"}, 0)


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


def test_cut(digits: dict[str, Path]) -> None:
    document = documents.cut(digits["resnet"])
    text = markdown(document, ORIGIN)
    for card in page_of(document).cards:
        assert f"**{card.value}**" in text
    assert text.count("<details>") == text.count("</details>") == 2
    assert text == markdown(document, ORIGIN)
    assert len(text) < 65_536  # what GitHub takes as a comment
    assert text.endswith("`onnxprune compress model.onnx`\n\nonnxprune 0.1.0; seed 0\n")


@pytest.mark.parametrize("make", [documents.benchmark, documents.sensitivity, documents.gate, documents.alignment])
def test_tables_are_whole(make: Any) -> None:
    """Every row of a table has as many cells as its head."""
    text = markdown(make(), ORIGIN)
    assert len(rows(text)) > 4
    for block in text.split("\n\n"):
        cells = {line.replace("\\|", "").count("|") for line in rows(block)}
        assert len(cells) <= 1


def test_names_cannot_become_markup() -> None:
    document = documents.sensitivity()
    document["groups"][0]["id"] = "a|b [x](http://y) @someone #1 <b>"
    text = markdown(document, ORIGIN)
    assert "a\\|b \\[x\\](http://y) \\@someone \\#1 &lt;b&gt;" in text


def test_long_tables_are_cut_short() -> None:
    document = documents.sensitivity()
    document["groups"] = [{**document["groups"][0], "id": f"group{number}"} for number in range(150)]
    text = markdown(document, ORIGIN)
    assert "50 more rows" in text
    assert "group120" not in text.partition("Every point")[0]
