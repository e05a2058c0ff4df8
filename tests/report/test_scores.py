"""Scores as documents, CSV, sparklines and a plot."""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from onnxprune.pipeline.run import inspect
from onnxprune.report.charts import shortened
from onnxprune.report.details import along, histogram, is_skewed
from onnxprune.report.score_plot import plot
from onnxprune.report.scores import as_csv, of_scores, show_scores, sparkline
from onnxprune.steps.prune.criteria.base import criteria
from onnxprune.steps.prune.score import score_model

SVG = "{http://www.w3.org/2000/svg}"
LARGEST = np.finfo(np.float64).max


@pytest.fixture
def found(digits: dict[str, Path]) -> dict[str, object]:
    analysis = inspect(digits["resnet"])
    scores = score_model(analysis, analysis.groups, "l2")
    return of_scores(scores, analysis.groups, criteria["l2"], Path("a <b>.onnx"), data=None, seed=3)


def test_document_holds_every_score(found: dict, digits: dict[str, Path]) -> None:
    analysis = inspect(digits["resnet"])
    scores = score_model(analysis, analysis.groups, "l2")
    assert [group["id"] for group in found["groups"]] == [group.id for group in analysis.groups]
    for group in found["groups"]:
        np.testing.assert_array_equal(group["scores"], scores[group["id"]])
        assert len(group["scores"]) == group["units"]
    assert (found["model"], found["criterion"], found["data"], found["seed"]) == ("a <b>.onnx", "l2", None, 3)
    assert json.loads(json.dumps(found)) == found


def test_csv_reads_back_exactly(found: dict) -> None:
    found["groups"][0]["id"] = 'odd, "name"'
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert len(rows) == sum(group["units"] for group in found["groups"])
    for group in found["groups"]:
        mine = [row for row in rows if row["group"] == group["id"]]
        assert [int(row["unit"]) for row in mine] == list(range(group["units"]))
        assert [float(row["score"]) for row in mine] == group["scores"]
        assert {row["kind"] for row in mine} == {group["kind"]}


def test_sparkline() -> None:
    assert sparkline(np.arange(16.0)) == "█" * 16
    assert sparkline(np.array([0.0] * 8 + [1.0]), "12345678") == "8" + " " * 14 + "1"
    assert sparkline(np.array([0.0] * 7 + [1.0] * 5 + [0.5]), "1234567").replace(" ", "") == "715"


@pytest.mark.parametrize("values", [[2.0, 2.0], [1.0, 1 + 2e-16], [-LARGEST, LARGEST], [0.0, 5e-324], [0.0, 0.0]])
def test_histogram_of_values_at_the_limits_of_floats(values: list[float]) -> None:
    ends = min(values), max(values)
    assert histogram(np.array(values), 5, ends).sum() == 2
    assert np.isfinite(along(np.array(values), ends)).all()


def test_histogram_is_that_of_numpy() -> None:
    values = np.random.default_rng(0).standard_normal(500)
    ends = float(values.min()), float(values.max())
    np.testing.assert_array_equal(histogram(values, 20, ends), np.histogram(values, 20)[0])


@pytest.mark.parametrize(
    ("values", "skewed"),
    [
        ([1, 2, 3, 4, 5], False),
        ([1, 1.1, 1.2, 1.3, 100], True),
        ([0, 1.1, 1.2, 1.3, 100], False),  # no logarithm
        ([3, 3, 3], False),
        ([1e-300, 2e-300, 1e300], True),
    ],
)
def test_skewed_scores_are_drawn_on_a_logarithmic_axis(found: dict, values: list[float], skewed: bool) -> None:
    assert is_skewed(np.array(values, dtype=np.float64)) is skewed
    drawn = plot({**found, "comparable": False, "groups": [{**found["groups"][0], "scores": values}]})
    assert ("logarithmic" in drawn) is skewed
    assert f"{max(values):.3g}</text>" in drawn
    shared = plot({**found, "comparable": True, "groups": [{**found["groups"][0], "scores": values}]})
    assert "logarithmic" not in shared


def test_plot_is_svg_with_a_row_per_group(found: dict) -> None:
    root = ElementTree.fromstring(plot(found))
    assert root.tag == f"{SVG}svg"
    rows = root.findall(f"{SVG}g")
    assert [row.find(f"{SVG}title").text for row in rows] == [group["id"] for group in found["groups"]]
    for row, group in zip(rows, found["groups"], strict=True):
        texts = [text.text for text in row.findall(f"{SVG}text")]
        assert texts[2:] == [f"{min(group['scores']):.3g}", f"{max(group['scores']):.3g}"]
        bars = row.find(f"{SVG}path[@class='bar']").attrib["d"]
        assert 0 < bars.count("M") <= min(52, group["units"])
    assert "a <b>.onnx" in root.find(f"{SVG}title").text


def test_comparable_scores_share_an_axis(found: dict) -> None:
    found["groups"] = [
        {"id": name, "kind": "neurons", "units": 2, "scores": scores} for name, scores in (("a", [0, 1]), ("b", [3, 4]))
    ]
    starts = {}
    for comparable in (True, False):
        root = ElementTree.fromstring(plot({**found, "comparable": comparable}))
        bars = [row.find(f"{SVG}path[@class='bar']").attrib["d"] for row in root.findall(f"{SVG}g")]
        starts[comparable] = [float(each[1:].split()[0]) for each in bars]
    assert starts[True] == [320, 320 + 10 * 39]
    assert starts[False] == [320, 320]


def test_the_middle_of_long_names_is_left_out(found: dict) -> None:
    found["groups"] = [{"id": "begin" + "x" * 60 + "end", "kind": "neurons", "units": 2, "scores": [0.0, 0.0]}]
    assert ">begin" + "x" * 9 + "…" + "x" * 24 + "end<" in plot(found)
    assert [len(shortened("x" * 50, length)) for length in (42, 50, 60)] == [42, 50, 50]


def test_table(found: dict, capsys: pytest.CaptureFixture[str]) -> None:
    show_scores(found)
    text = capsys.readouterr().out
    for group in found["groups"]:
        assert group["id"] in text
        assert f"{np.median(group['scores']):.4g}" in text
    show_scores({**found, "groups": []})
    assert "no group can be scored" in capsys.readouterr().out
