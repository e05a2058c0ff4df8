"""Recipes: options and per-group ratios in TOML."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from onnxprune.cli import main
from onnxprune.errors import UsageError
from onnxprune.pipeline.recipe import read
from onnxprune.pipeline.run import compress, inspect
from onnxprune.steps.plan import Plan


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def test_options_and_ratios(tmp_path: Path) -> None:
    recipe = read(
        written(tmp_path, 'scope = "uniform"\nround-to = 8\ntarget = "macs=0.4"\n[groups]\nneurons = 0.6\n"a.*" = 0\n')
    )
    assert recipe.options == {"scope": "uniform", "round_to": 8, "target": ["macs=0.4"]}
    assert recipe.ratios == (("neurons", 0.6), ("a.*", 0.0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ratio = ", "is not TOML"),
        ("ratios = 0.5", "sets 'ratios'; did you mean 'ratio'"),
        ('ratio = "half"', "ratio is a number, not 'half'"),
        ("seed = true", "seed is a whole number, not True"),
        ("only = [1]", r"only is a list of texts, not \[1\]"),
        ("groups = 3", "groups is a table"),
        ("[groups]\nneurons = 1.0", r"'neurons' in groups is a ratio in \[0, 1\), not 1.0"),
        ("[groups]\nneurons = true", "is a ratio"),
    ],
)
def test_what_is_no_recipe_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refusal:
        read(written(tmp_path, text))
    assert "\n" not in str(refusal.value)


def test_a_missing_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the recipe"):
        read(tmp_path / "none.toml")


def test_groups_lose_just_what_is_said_and_the_last_word_counts(digits: dict[str, Path]) -> None:
    groups = inspect(digits["transformer"]).groups
    first = next(group for group in groups if group.kind == "neurons")
    ratios = [("neurons", 0.25), (first.id, 0.75), ("heads", 0.0)]
    report = compress(digits["transformer"], ratio=0.5, scope="uniform", ratios=ratios).report
    for group in report.groups:
        due = {"neurons": 0.25, "heads": 0.0}.get(group.kind, 0.5) if group.id != first.id else 0.75
        assert group.kept == group.units - int(due * group.units)


def test_a_target_is_met_around_what_is_said(digits: dict[str, Path]) -> None:
    result = compress(digits["transformer"], target=["params=0.5"], ratios=[("hidden", 0.125)])
    assert result.report.after.parameters <= 0.5 * result.report.before.parameters
    assert next(group.kept for group in result.report.groups if group.kind == "hidden") == 56


def test_a_pattern_that_matches_nothing_is_refused(digits: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="nothing in this model matches 'neuron'"):
        compress(digits["transformer"], ratios=[("neuron", 0.5)])


def test_the_command_line_has_the_last_word(digits: dict[str, Path], tmp_path: Path) -> None:
    recipe = written(tmp_path, 'scope = "uniform"\nratio = 0.25\n[groups]\nheads = 0\n')
    options = ["--recipe", recipe, "--ratio", "0.5", "--plan", tmp_path / "plan.json", "--dry-run"]
    done = CliRunner().invoke(main, ["compress", str(digits["transformer"]), *map(str, options)])
    assert done.exit_code == 0, done.output
    plan = Plan.read(tmp_path / "plan.json")
    assert (plan.request["ratio"], plan.request["scope"]) == (0.5, "uniform")
    assert {removal.kind for removal in plan.removals} == {"hidden", "neurons", "head-dim"}


def test_a_ratio_of_the_command_line_decides_over_a_target_of_the_recipe(
    digits: dict[str, Path], tmp_path: Path
) -> None:
    recipe, plan = written(tmp_path, 'target = "macs=0.2"\nscope = "uniform"\n'), tmp_path / "plan.json"
    args = [
        "compress",
        str(digits["resnet"]),
        "--recipe",
        str(recipe),
        "--ratio",
        "0.25",
        "--dry-run",
        "--plan",
        str(plan),
    ]
    assert CliRunner().invoke(main, args).exit_code == 0
    removals = Plan.read(plan).removals
    assert removals
    assert all(len(removal.remove) == removal.units // 4 for removal in removals)


def test_a_ratio_and_a_target_are_one_too_many(digits: dict[str, Path]) -> None:
    options = ["--ratio", "0.5", "--target", "macs=0.5", "--dry-run"]
    done = CliRunner().invoke(main, ["compress", str(digits["resnet"]), *options])
    assert done.exit_code == 2
    assert "--ratio and --target both say how much to remove" in done.output


def test_a_target_that_cannot_be_met_ends_with_1(digits: dict[str, Path]) -> None:
    done = CliRunner().invoke(main, ["compress", str(digits["resnet"]), "--target", "params=10", "--dry-run"])
    assert done.exit_code == 1
    assert "params=10 cannot be met: with everything gone that may go" in done.output
