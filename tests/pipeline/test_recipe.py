"""Recipes: steps in TOML, in JSON, from options, and by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from onnxprune.cli import main
from onnxprune.data.options import DataOptions
from onnxprune.errors import UsageError, WrongTypeError
from onnxprune.pipeline.recipe import Recipe
from onnxprune.pipeline.run import compress, inspect
from onnxprune.steps.base import Step, steps
from onnxprune.steps.clean import Clean
from onnxprune.steps.plan import Plan
from onnxprune.steps.prune.step import Prune
from onnxprune.steps.recover.step import Recover
from onnxprune.steps.repeat import Repeat
from onnxprune.steps.sparsify.step import Sparsify
from onnxprune.steps.train.step import Train
from tests.conftest import TORCH

SHIPPED = sorted(path.stem for path in (Path(__file__).resolve().parents[2] / "recipes").glob("*.toml"))


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def run(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def test_steps_in_toml_are_the_steps(tmp_path: Path) -> None:
    recipe = Recipe.read(
        written(
            tmp_path,
            """
            seed = 3
            [[step]]
            step = "repeat"
            times = 2
            [[step.steps]]
            step = "prune"
            target = "macs=0.4"
            round-to = 8
            ratios = { neurons = 0.6, "a.*" = 0 }
            [[step.steps]]
            step = "recover"
            method = "bias"
            [[step]]
            step = "clean"
            passes = ["equalize"]
            """,
        )
    )
    prune = Prune(target="macs=0.4", round_to=8, ratios={"neurons": 0.6, "a.*": 0})  # type: ignore[arg-type]
    assert recipe.steps == (Repeat(times=2, steps=(prune, Recover("bias"))), Clean(passes=("equalize",)))
    assert recipe.settings == {"seed": 3}


def test_a_file_without_steps_holds_options(tmp_path: Path) -> None:
    recipe = Recipe.read(
        written(tmp_path, 'scope = "uniform"\nround-to = 8\ntarget = "macs=0.4"\n[groups]\nneurons = 0.6\n"a.*" = 0\n')
    )
    ratios = (("neurons", 0.6), ("a.*", 0.0))
    assert recipe == Recipe(
        (Prune(scope="uniform", round_to=8, target=("macs=0.4",), ratios=ratios), Recover(), Clean())
    )


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    recipe = Recipe.of_options(
        {"ratios": {"heads": 0.25}, "steps": 3, "only": "channels", "clean": "equalize", "seed": 7}
    )
    assert Recipe.read(written(tmp_path, json.dumps({"recipe": recipe.document()}))) == recipe
    assert Recipe.read(written(tmp_path, json.dumps(recipe.document()))) == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ratio = ", "is not TOML"),
        ("\nrattio = 0.5", "line 2: unknown option 'rattio'; did you mean 'ratio'"),
        ('ratio = "half"', "line 1: ratio is a number, not 'half'"),
        ("seed = true", "seed is a whole number, not True"),
        ("only = [1]", r"only is a list of texts, not 1"),
        ("groups = 3", "groups is a table"),
        ("[groups]\nneurons = 1.0", r"ratios of 'neurons' 1 is outside \[0, 1\)"),
        ("[groups]\nneurons = true", "ratios is a table"),
        ('[[step]]\nstep = "prun"', "line 2: unknown step 'prun'; did you mean 'prune'"),
        (
            '[[step]]\nstep = "prune"\nrattio = 0.3',
            "line 3: the step prune has no option 'rattio'; did you mean 'ratio'",
        ),
        ('[[step]]\nstep = "prune"\nratio = 2', r"line 3: ratio 2 is outside \[0, 1\)"),
        ('[[step]]\nstep = "repeat"\ntimes = 2', "repeat needs steps to repeat"),
        ("[[step]]\nratio = 0.5", 'a \\[\\[step\\]\\] says which it is, like step = "prune"'),
        ('sed = 1\n[[step]]\nstep = "prune"', "line 1: unknown setting 'sed'; did you mean 'seed'"),
        ('step = "prune"', "steps are tables like"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refusal:
        Recipe.read(written(tmp_path, text))
    assert "\n" not in str(refusal.value)
    assert "recipe.toml" in str(refusal.value)


def test_a_missing_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the recipe"):
        Recipe.read(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="no file and no recipe 'iterativ'; did you mean 'iterative'"):
        Recipe.read("iterativ")


def shortened(recipe: Recipe) -> Recipe:
    """With two updates in trainings, and two rounds, where weights become zero or a method or a penalty takes part."""
    every = list(recipe.every())
    if not any(isinstance(step, Sparsify) or (isinstance(step, Train) and methods_of(step)) for step in every):
        return recipe
    return Recipe(tuple(map(short, recipe.steps)), recipe.settings)


def methods_of(step: Train) -> bool:
    return bool(step.training_method or step.penalty)


def short(step: Step) -> Step:
    if isinstance(step, Repeat):
        return replace(step, times=2, steps=tuple(map(short, step.steps)))
    return replace(step, updates=2) if isinstance(step, Train) else step


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.filterwarnings("ignore::onnxprune.errors.DamageWarning")
def test_shipped_recipes_run_on_a_model(digits: dict[str, Path], name: str) -> None:
    """Those of sparsity, training methods and penalties for two updates only; one looks at normalizations."""
    recipe = shortened(Recipe.read(name))
    if not TORCH and any(step.name in ("train", "reinitialize") for step in recipe.every()):
        pytest.skip("training needs torch")
    samples = DataOptions(str(digits["lstm"].with_name("digits_calibration.npz")), labels="labels")
    data = None if name in ("data-free", "lossless") else samples
    result = recipe(digits["resnet" if name == "network-slimming" else "lstm"], data=data)
    assert result.recipe == recipe.document()
    assert result.report.after.parameters <= result.report.before.parameters
    if any(isinstance(step, Sparsify) for step in recipe.every()):
        assert result.report.sparsity is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rattio": 0.5}, "unknown option 'rattio'; did you mean 'ratio'"),
        ({"schedule": "linear"}, "--schedule says how several rounds share the cut; add --steps"),
        ({"lossless": True, "ratio": 0.3}, "--ratio has no effect with --lossless"),
        ({"lossless": True, "recover": "bias"}, "--recover has no effect with --lossless"),
        ({"recover": "bais"}, "unknown recovery 'bais'; did you mean 'bias'"),
        ({"steps": 0}, "times 0 is outside"),
        ({"min_units": 2.5}, "min-units is a whole number, not 2.5"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Recipe.of_options(options)


def test_what_is_no_step_is_refused() -> None:
    with pytest.raises(WrongTypeError, match="a recipe is a list of steps"):
        Recipe(["prune"])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="a repeat inside a repeat"):
        Repeat(times=2, steps=(Repeat(times=2, steps=(Prune(),)),))


def test_every_step_says_what_it_does() -> None:
    assert set(steps.names()) >= {"prune", "recover", "repeat", "clean"}
    assert all(steps[name].summary.endswith(".") for name in steps.names())


def test_groups_lose_just_what_is_said_and_the_last_word_counts(digits: dict[str, Path]) -> None:
    groups = inspect(digits["transformer"]).groups
    first = next(group for group in groups if group.kind == "neurons")
    ratios = [("neurons", 0.25), (first.id, 0.75), ("heads", 0.0)]
    report = compress(digits["transformer"], ratio=0.5, scope="uniform", ratios=ratios, recover="none").report
    for group in report.groups:
        due = {"neurons": 0.25, "heads": 0.0}.get(group.kind, 0.5) if group.id != first.id else 0.75
        assert group.kept == group.units - int(due * group.units)


def test_a_target_is_met_around_what_is_said(digits: dict[str, Path]) -> None:
    result = compress(digits["transformer"], target=["params=0.5"], ratios=[("hidden", 0.125)], recover="none")
    assert result.report.after.parameters <= 0.5 * result.report.before.parameters
    assert next(group.kept for group in result.report.groups if group.kind == "hidden") == 56


def test_a_pattern_that_matches_nothing_is_refused(digits: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="nothing in this model matches 'neuron'"):
        compress(digits["transformer"], ratios=[("neuron", 0.5)], recover="none")


def test_the_command_line_has_the_last_word(digits: dict[str, Path], tmp_path: Path) -> None:
    recipe = written(tmp_path, 'scope = "uniform"\nratio = 0.25\n[groups]\nheads = 0\n')
    options = ["--recipe", recipe, "--ratio", "0.5", "--plan", tmp_path / "plan.json", "--dry-run", "--recover", "none"]
    done = run("compress", digits["transformer"], *options)
    assert done.exit_code == 0, done.output
    plan = Plan.read(tmp_path / "plan.json")
    assert plan.recipe["step"][0] == {"step": "prune", "scope": "uniform", "ratios": {"heads": 0.0}}
    assert {removal.kind for removal in plan.removals} == {"hidden", "neurons", "head-dim"}


def test_a_ratio_of_the_command_line_decides_over_a_target_of_the_recipe(
    digits: dict[str, Path], tmp_path: Path
) -> None:
    recipe, plan = (
        written(tmp_path, 'target = "macs=0.2"\nscope = "uniform"\nrecover = "none"\n'),
        tmp_path / "plan.json",
    )
    done = run("compress", digits["resnet"], "--recipe", recipe, "--ratio", "0.25", "--dry-run", "--plan", plan)
    assert done.exit_code == 0, done.output
    removals = Plan.read(plan).removals
    assert removals
    assert all(len(removal.remove) == removal.units // 4 for removal in removals)


def test_an_option_of_a_step_that_the_recipe_lacks_is_refused(digits: dict[str, Path], tmp_path: Path) -> None:
    recipe = written(tmp_path, '[[step]]\nstep = "prune"\n')
    done = run("compress", digits["resnet"], "--recipe", recipe, "--recover", "bias", "--dry-run")
    assert done.exit_code == 2
    assert "--recover is an option of the step recover, which the recipe does not have" in done.output


def test_the_recorded_recipe_gives_the_same_bytes(digits: dict[str, Path], tmp_path: Path, quick_inputs: None) -> None:
    first, second, record = tmp_path / "1.onnx", tmp_path / "2.onnx", tmp_path / "record.json"
    options = ["--criterion", "random", "--seed", "5", "--steps", "2", "--target", "macs=0.5", "--max-ratio", "0.7"]
    done = run("compress", digits["resnet"], *options, "-o", first, "--plan", tmp_path / "plan.json", "--json")
    assert done.exit_code == 0, done.output
    record.write_text(done.stdout)
    assert Recipe.read(record) == Recipe.read(tmp_path / "plan.json")
    again = run("compress", digits["resnet"], "--recipe", record, "-o", second)
    assert again.exit_code == 0, again.output
    assert first.read_bytes() == second.read_bytes()


def test_a_ratio_and_a_target_are_one_too_many(digits: dict[str, Path]) -> None:
    done = run("compress", digits["resnet"], "--recover", "none", "--ratio", "0.5", "--target", "macs=0.5", "--dry-run")
    assert done.exit_code == 2
    assert "--ratio and --target both say how much to remove" in done.output


def test_a_target_that_cannot_be_met_ends_with_1(digits: dict[str, Path]) -> None:
    done = run("compress", digits["resnet"], "--recover", "none", "--target", "params=10", "--dry-run")
    assert done.exit_code == 1
    assert "params=10 cannot be met: with everything removed that may go" in done.output
