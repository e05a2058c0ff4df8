"""What every step promises, asserted for every one that is registered: a new file is under this test.

- It is a frozen dataclass; each of its options says in a sentence what it is.
- Its sample runs: the state that it is given stays as it is, what comes out is a valid model with the same interface,
  it says what it did, and the same again gives the same bytes.
- It is public under the name of its class, and a recipe with it reads as it was written.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import onnxprune
from onnxprune.data.given import as_data
from onnxprune.errors import MissingExtraError
from onnxprune.model.check import check_model
from onnxprune.model.file import save
from onnxprune.model.signature import ports_of
from onnxprune.pipeline.recipe import Recipe
from onnxprune.pipeline.run import inspect
from onnxprune.steps.base import Context, Step, steps
from onnxprune.steps.state import State
from onnxprune.support.options import options_of
from tests.conftest import Build

NETWORK = """
    net (float[batch, 6] x) => (float[batch, 4] y) <float[6, 8] w, float[8] b, float[8, 4] v>
    { h = MatMul(x, w)  s = Add(h, b)  r = Relu(s)  y = MatMul(r, v) }
"""


def content(state: State, folder: Path) -> bytes:
    save(state.model, folder / "content.onnx")
    return (folder / "content.onnx").read_bytes()


def after(sample: tuple[Step, ...], path: Path, folder: Path) -> State:
    """The last state, from one without two of the units; asserts that each step leaves the one before as it is."""
    rng = np.random.default_rng(0)
    pairs = [({"x": rng.standard_normal((16, 6)).astype(np.float32)}, rng.integers(0, 4, 16)) for _ in range(4)]
    state = State.of(inspect(path), path)
    (group,) = state.original.groups
    state = state.cut({group.atom: np.arange(group.units) > 1})
    context = Context(data=as_data(pairs, ports_of(state.model)))
    for at, each in enumerate(sample):
        before, kept = content(state, folder), state
        each.needs(context)
        state = each(kept, replace(context, following=sample[at + 1 :]))
        assert content(kept, folder) == before
    return state


@pytest.mark.parametrize("name", steps)
def test_sample(name: str, build: Build, tmp_path: Path) -> None:
    path, sample = build(NETWORK), steps[name].sample()
    assert sample[-1].name == name
    try:
        first, again = (after(sample, path, tmp_path) for _ in range(2))
    except MissingExtraError as error:
        pytest.skip(str(error))
    assert content(first, tmp_path) == content(again, tmp_path)
    check_model(tmp_path / "content.onnx")
    assert ports_of(first.model) == ports_of(inspect(path).model)
    assert first.records


@pytest.mark.parametrize("name", steps)
def test_is_a_frozen_dataclass_whose_options_say_what_they_are(name: str) -> None:
    kind = steps[name]
    assert dataclasses.is_dataclass(kind)
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert kind.name == name
    assert kind.summary.endswith(".")
    assert all(each.declared.help.endswith(".") for each in options_of(kind).values())


@pytest.mark.parametrize("name", steps)
def test_is_public_under_the_name_of_its_class(name: str) -> None:
    assert getattr(onnxprune, steps[name].__name__) is steps[name]


@pytest.mark.parametrize("name", steps)
def test_a_recipe_reads_as_it_was_written(name: str, tmp_path: Path) -> None:
    recipe = Recipe(steps[name].sample())
    (tmp_path / "recipe.json").write_text(json.dumps(recipe.document()))
    assert Recipe.read(tmp_path / "recipe.json") == recipe
