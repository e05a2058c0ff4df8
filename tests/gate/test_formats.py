"""What a verdict looks like in each format."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from onnxprune.evaluation.gate.run import BudgetCheck, Checked, GateVerdict
from onnxprune.report import gate_formats as formats

VERDICT = GateVerdict(
    (
        Checked(
            "a,b:c.onnx",
            (
                BudgetCheck("max-size", "ok", 5, "5 bytes", "at most 6 bytes", "101% of the baseline's 5"),
                BudgetCheck("allowed-ops", "broken", ["<b>|`"], "also <b>|`", "only Conv"),
            ),
        ),
        Checked("none.onnx", (BudgetCheck("model", "unchecked", None, "does not exist"),)),
        Checked("new.onnx", (BudgetCheck("max-drop", "new", None, "becomes the baseline"),)),
    )
)
FINE = GateVerdict((Checked("a.onnx", (BudgetCheck("opset", "ok", 17, "17", "17"),)),), Path("baseline.json"))


def test_json_is_plain_and_complete() -> None:
    document = json.loads(json.dumps(formats.to_dict(VERDICT), allow_nan=False))
    assert (document["format"], document["exit_code"], document["updated"]) == (1, 1, None)
    assert [model["model"] for model in document["models"]] == ["a,b:c.onnx", "none.onnx", "new.onnx"]
    assert document["models"][0]["checks"][0] == {
        "budget": "max-size",
        "status": "ok",
        "found": 5,
        "shown": "5 bytes",
        "limit": "at most 6 bytes",
        "note": "101% of the baseline's 5",
    }
    assert formats.to_dict(FINE)["updated"] == "baseline.json"


def test_junit_counts_and_escapes() -> None:
    root = ElementTree.fromstring(formats.to_junit(VERDICT))
    assert (root.tag, root.get("tests"), root.get("failures"), root.get("errors")) == ("testsuites", "4", "1", "1")
    first, second, third = root
    assert (first.get("name"), first.get("tests"), first.get("failures")) == ("a,b:c.onnx", "2", "1")
    assert [case.get("name") for case in first] == ["max-size", "allowed-ops"]
    failure = first[1].find("failure")
    assert failure is not None
    assert failure.get("message") == "allowed-ops broken: also <b>|`, only Conv"
    error = second[0].find("error")
    assert error is not None
    assert error.get("message") == "model could not be checked: does not exist"
    assert [child.tag for child in (*first[0], *third[0])] == ["system-out", "system-out"]


def test_markdown_is_a_table_whatever_the_names() -> None:
    text = formats.to_markdown(VERDICT)
    rows = [line for line in text.splitlines() if line.startswith("| :")]
    assert [row.split()[1] for row in rows] == [":white_check_mark:", ":x:", ":warning:", ":new:"]
    assert r"also &lt;b&gt;\|\`" in rows[1]
    assert all(row.replace(r"\|", "").count("|") == 7 for row in rows)
    assert text.isascii()
    assert text.rstrip().endswith("3 models: budgets 1 held, 1 broken, 1 could not be checked, 1 not compared yet")


def test_annotations_are_of_failures_and_escaped() -> None:
    lines = formats.to_annotations(VERDICT)
    assert lines == [
        "::error file=a%2Cb%3Ac.onnx,title=onnxprune allowed-ops::allowed-ops broken: also <b>|`, only Conv",
        "::error file=none.onnx,title=onnxprune model::model could not be checked: does not exist",
    ]
    assert formats.to_annotations(FINE) == []
    percent = GateVerdict((Checked("a\nb", (BudgetCheck("max-drop", "broken", 1, "100%", "x"),)),))
    assert formats.to_annotations(percent) == [
        "::error file=a%0Ab,title=onnxprune max-drop::max-drop broken: 100%25, x"
    ]


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (["ok", "ok"], 0),
        (["new", "ok"], 0),
        (["ok", "unchecked"], 2),
        (["broken", "ok"], 1),
        (["unchecked", "broken"], 1),
    ],
)
def test_exit_code(statuses: list[str], code: int) -> None:
    verdict = GateVerdict(tuple(Checked("m", (BudgetCheck("b", status, 1, ""),)) for status in statuses))  # type: ignore[arg-type]
    assert verdict.exit_code == code
