"""Spaces: recipes whose options are ranges."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxprune.errors import UsageError
from onnxprune.pipeline.recipe import Recipe
from onnxprune.pipeline.search.space import Space
from onnxprune.steps.base import steps
from onnxprune.steps.prune.step import Prune
from onnxprune.steps.quantize.step import Quantize
from onnxprune.steps.recover.step import Recover
from onnxprune.steps.train.step import Train
from onnxprune.support.options import options_of
from onnxprune.support.toml import to_toml

SPACE = """
seed = 3
[[step]]
step = "prune"
target = "macs={0.3..0.8}"
round-to = { low = 1, high = 16 }
tilt = [{ search = true }, 0, { low = -1, high = 2 }]
tilts = { neurons = { low = -1, high = 1 } }
scope = { choose = ["uniform", "auto"] }

[[step]]
step = "repeat"
times = { choose = [1, 2] }

[[step.steps]]
step = "train"
learning_rate = { low = 1e-4, high = 1e-2, log = true }

[[step]]
step = "quantize"
optional = true
"""


def test_every_range_is_a_parameter() -> None:
    space = Space(SPACE)
    assert list(space.parameters) == [
        "prune.target",
        "prune.round-to",
        "prune.tilt.0",
        "prune.tilt.2",
        "prune.tilts.neurons",
        "prune.scope",
        "repeat.times",
        "repeat.train.learning_rate",
        "quantize",
    ]
    starts = {name: each.start for name, each in space.parameters.items()}
    assert starts["prune.target"] == pytest.approx(0.55)
    assert (starts["prune.round-to"], starts["prune.tilt.0"], starts["prune.scope"]) == (1, 0.0, "auto")
    assert space.parameters["prune.round-to"].whole
    assert space.parameters["repeat.train.learning_rate"].log


def test_a_recipe_has_the_values() -> None:
    values = {"prune.target": 0.41234567, "prune.round-to": 8, "prune.tilts.neurons": -0.5, "prune.scope": "uniform"}
    recipe = Space(SPACE).recipe({**values, "prune.tilt.2": 1.25, "quantize": False, "repeat.times": 2})
    prune = recipe.steps[0]
    assert isinstance(prune, Prune)
    assert (prune.target, prune.round_to, prune.scope) == (("macs=0.4123",), 8, "uniform")
    assert (prune.tilt, prune.tilts) == ((0.0, 0.0, 1.25), (("neurons", -0.5),))
    assert recipe.settings["seed"] == 3
    assert not any(isinstance(step, Quantize) for step in recipe.steps)
    assert any(isinstance(step, Quantize) for step in Space(SPACE).widest.steps)


def test_the_short_form_has_ranges_too() -> None:
    space = Space('ratio = { low = 0.2, high = 0.6 }\nrecover = { choose = ["bias", "reconstruct"] }')
    recipe = space.recipe({"ratio": 0.25, "recover": "bias"})
    assert recipe.steps[:2] == (Prune(ratio=0.25), Recover("bias"))


def test_any_field_of_any_step_may_be_a_range() -> None:
    """What a step declares as a range or as choices is searched with `search = true`."""
    for name in steps.names():
        for each in options_of(steps[name]).values():
            declared = each.declared
            if declared.search is None and (declared.choices is None or each.many):
                continue
            value = "[{ search = true }]" if each.many and not each.pairs else "{ search = true }"
            value = "{ neurons = { search = true } }" if each.pairs else value
            inner = '[[step.steps]]\nstep = "clean"\n' if name == "repeat" else ""
            space = Space(f'[[step]]\nstep = "{name}"\n{each.name} = {value}\n{inner}')
            assert next(iter(space.parameters)).startswith(f"{name}.{each.name}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ratio = 0.5", "leaves nothing to search"),
        ("ratio = { low = 0.5, high = 1.5 }", "ratio 1.5 is outside"),
        ("ratio = { low = 0.5, high = 0.2 }", "low has to be a number below high"),
        ("ratio = { low = 0, high = 0.5, log = true }", "log takes a range above 0"),
        ("ratio = { low = 0, high = 0.5, setp = 1 }", "unknown keys setp"),
        ("scope = { choose = ['auto', 'unifrom'] }", "did you mean 'uniform'"),
        ("[[step]]\nstep = 'prune'\nrato = { low = 0, high = 0.5 }", "line 3"),
        ("[[step]]\nstep = 'train'\nseconds = { search = true }", "declares no range of its own"),
        ("ratio = {", "is not TOML"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_any_work(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        Space(text)
    assert said in str(caught.value)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="cannot read the space"):
        Space.read(Path("nowhere.toml"))


def test_recipes_are_written_as_toml_that_reads_the_same(tmp_path: Path) -> None:
    recipe = Recipe(
        (Prune(tilt=(0.5, -1.0), tilts={"a.b*": 0.25}, target=["macs=0.4"]), Recover(), Train(epochs=2)),  # type: ignore[arg-type]
        {"seed": 7},
    )
    path = tmp_path / "a.toml"
    path.write_text(to_toml(recipe.document()))
    assert Recipe.read(path) == recipe
    shipped = Recipe.read("iterative-training")
    path.write_text(to_toml(shipped.document()))
    assert Recipe.read(path).document() == shipped.document()
