"""`onnxprune list`: every family that is chosen from by name can be looked at."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from onnxprune.cli import main
from onnxprune.cli.commands.list import FAMILIES, registry_of
from tests.conftest import ROOT, TORCH
from tests.test_imports import FILES, module_of

# Tables of operators beside that of the rules.
INNER = {
    "onnxprune.ops.base:EVALUATORS",
    "onnxprune.ops.base:COSTS",
    "onnxprune.ops.base:SHAPES",
    "onnxprune.ops.matmul_view:FORMS",
    "onnxprune.ops.float_forms:FLOAT_FORMS",
    "onnxprune.ops.weight_paths:LINKS",
    "onnxprune.ops.constants.base:RULES",
    "onnxprune.ops.constants.linear:FORMS",
}


def run(*args: str) -> str:
    result = CliRunner().invoke(main, ["list", *args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("family", FAMILIES)
def test_members_by_name_with_a_summary(family: str) -> None:
    if "torch" in FAMILIES[family][0]:
        pytest.importorskip("torch")
    members = json.loads(run(family, "--json"), parse_constant=pytest.fail)["members"]
    assert [each["name"] for each in members] == sorted(each["name"] for each in members)
    assert len(members) == len(registry_of(family))
    text = run(family)
    for each in members:
        assert each["name"] in text
        assert each["summary"] or "operators" in family, each["name"]


def test_all_families() -> None:
    text = run()
    assert all(name in text for name in FAMILIES)
    assert [each["name"] for each in json.loads(run("--json"))["members"]] == list(FAMILIES)


def test_no_family_is_left_out() -> None:
    found = {
        f"{'.'.join(('onnxprune', *module_of(path)))}:{name}"
        for path in FILES
        for name in re.findall(r"^(\w+): Registry\[", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert found == {place for place, _ in FAMILIES.values()} | INNER


def test_what_else_is_known_of_a_member() -> None:
    needs = {each["name"]: each["needs"] for each in json.loads(run("criteria", "--json"))["members"]}
    assert needs["l1"] == ["weights"]
    assert ["gradients"] in needs.values()
    assert not any("sample" in each for each in json.loads(run("metrics", "--json"))["members"])
    text = " ".join(run("criteria").split())
    assert "needs: gradients" in text
    assert "source: " in text
    assert run("operators").count("Conv") > 3


def test_unknown_family_is_refused_with_what_there_is() -> None:
    result = CliRunner().invoke(main, ["list", "criterias"])
    assert result.exit_code == 2
    assert "metrics" in result.stderr


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_pages_and_help_send_to_families_that_there_are(path: Path) -> None:
    """The help of every command is in docs/cli.md."""
    text = re.sub(r"-\n\s+", "-", path.read_text())  # help is wrapped behind hyphens too
    named = set(re.findall(r"onnxprune\s+list\s+([a-z-]+)", text))
    assert named - {"onnxprune"} <= set(FAMILIES)  # in a list of examples the next one follows


@pytest.mark.parametrize("name", main.list_commands(click.Context(main)))
def test_help_does_not_list_a_family_by_hand(name: str) -> None:
    """A default may be named, and what to give instead; a list would have to be changed with every new member."""
    command = main.get_command(click.Context(main), name)
    assert command is not None
    for option in command.get_params(click.Context(command)):
        text = getattr(option, "help", None) or ""
        words = set() if "onnxprune list" in text else set(re.findall(r"[\w-]+", text))
        for family in ("criteria", "losses", "metrics", "recovery", "schedules", "scopes", "clean-ups"):
            if family != "losses" or TORCH:
                assert len(words.intersection(registry_of(family))) < 3, f"{name} {option.name}: see: list {family}"
