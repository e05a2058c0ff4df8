"""A verdict for people and for CI: table, JSON, Markdown, JUnit XML, GitHub annotations."""

from __future__ import annotations

import html
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

from onnxprune.evaluation.gate.run import WORDS, BudgetCheck, GateVerdict, checks, failed, sentence
from onnxprune.report.tables import TextTable

FORMAT = 1

_STYLES = {"broken": "bold red", "unchecked": "bold yellow", "new": "cyan"}


def to_dict(verdict: GateVerdict) -> dict[str, Any]:
    """Ready for JSON; `format` changes when a key changes its meaning or goes."""
    return {
        "format": FORMAT,
        "kind": "gate",
        "exit_code": verdict.exit_code,
        "models": [asdict(model) for model in verdict.models],
        "updated": None if verdict.updated is None else str(verdict.updated),
    }


def to_table(verdict: GateVerdict) -> TextTable:
    """For a terminal."""
    table = TextTable("model", "budget", ">found", ">allowed", "", "note")
    for model in verdict.models:
        for number, check in enumerate(model.checks):
            name = model.model if number == 0 else ""
            style = "" if check.status == "ok" else _STYLES[check.status]
            table.add_row(name, check.budget, check.shown, check.limit, WORDS[check.status], check.note, style=style)
    return table


def to_markdown(verdict: GateVerdict) -> str:
    """For pull requests and step summaries."""
    icons = {"ok": ":white_check_mark:", "broken": ":x:", "unchecked": ":warning:", "new": ":new:"}
    lines = ["### onnxprune gate", "", "| | model | budget | found | allowed | note |", "|---|---|---|---|---|---|"]
    for model, check in checks(verdict):
        cells = (model.model, check.budget, check.shown, check.limit, check.note)
        lines.append(f"| {icons[check.status]} | {' | '.join(_cell(cell) for cell in cells)} |")
    return "\n".join((*lines, "", verdict.summary, ""))


def _cell(text: str) -> str:
    """Text in a table of Markdown: names come from files, and must not become links, images or columns."""
    escaped = html.escape(text, quote=False)
    return "".join(f"\\{character}" if character in r"\`*_[]|~!@#" else character for character in escaped)


def to_junit(verdict: GateVerdict) -> str:
    """JUnit XML: a suite for each model, a case for each budget; a failure is broken, an error could not be checked."""
    root = ElementTree.Element("testsuites", _counts([check for _, check in checks(verdict)]), name="onnxprune gate")
    for model in verdict.models:
        suite = ElementTree.SubElement(root, "testsuite", _counts(model.checks), name=model.model)
        for check in model.checks:
            case = ElementTree.SubElement(suite, "testcase", classname=model.model, name=check.budget)
            if check.status in ("broken", "unchecked"):
                kind = "failure" if check.status == "broken" else "error"
                ElementTree.SubElement(case, kind, message=sentence(check), type=check.budget)
            ElementTree.SubElement(case, "system-out").text = sentence(check)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _counts(checks: list[BudgetCheck] | tuple[BudgetCheck, ...]) -> dict[str, str]:
    statuses = [check.status for check in checks]
    return {
        "tests": str(len(checks)),
        "failures": str(statuses.count("broken")),
        "errors": str(statuses.count("unchecked")),
    }


def to_annotations(verdict: GateVerdict) -> list[str]:
    """Workflow commands of GitHub, for what is not as it should be."""
    return [
        f"::error file={_property(model.model)},title=onnxprune {check.budget}::{_data(sentence(check))}"
        for model, check in failed(verdict)
    ]


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
