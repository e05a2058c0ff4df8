"""What every criterion promises, asserted for every one that is registered: a new file is under this test.

- One finite float per unit, the same in every run.
- Units have no order: with the units of a group permuted in the weights, the scores are permuted.
- It says where it comes from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from onnxprune.analysis.groups import Analysis, Group
from onnxprune.dims import Atom, Concat, Dim, factors, resolve, terms
from onnxprune.errors import MissingExtraError
from onnxprune.pipeline.run import inspect
from onnxprune.steps.prune.criteria.base import NEEDS, Scores, criteria
from onnxprune.steps.prune.score import score_model
from tests.conftest import Build
from tests.criteria.samples import random_data

NAMES = criteria.names()
CHANCE = {"random"}  # scores that do not look at the weights

# Axes that are sums and products of groups: grouped and depthwise convolutions, a concatenation of two branches; and
# integers that represent weights.
NETS = {
    "grouped": """
        net (float[batch, 6, 5, 5] x) => (float[batch, 4, 5, 5] y)
        <float[12, 6, 1, 1] a, float[8, 3, 3, 3] b, float[8, 1, 3, 3] c, float[4, 8, 1, 1] d>
        {
            h = Conv(x, a)  g = Conv<group = 4, pads = [1, 1, 1, 1]>(h, b)  r = Relu(g)
            k = Conv<group = 8, pads = [1, 1, 1, 1]>(r, c)  y = Conv(k, d)
        }
    """,
    "concatenated": """
        net (float[batch, 3, 5, 5] x) => (float[batch, 4, 5, 5] y)
        <float[6, 3, 1, 1] a, float[5, 3, 1, 1] b, float[11, 11, 1, 1] c, float[4, 11, 1, 1] d>
        {
            p = Conv(x, a)  q = Conv(x, b)  r = Concat<axis = 1>(p, q)  s = Relu(r)  t = Conv(s, c)
            u = Add(s, t)  y = Conv(u, d)
        }
    """,
}
NETS["quantized"] = """
    net (float[batch, 5] x) => (float[batch, 3] y)
    <int8[5, 8] q, float[8] scale, int8[8] zero, float[8, 3] v>
    { w = DequantizeLinear<axis = 1>(q, scale, zero)  h = MatMul(x, w)  r = Relu(h)  y = MatMul(r, v) }
"""
ARRAYS = {
    "quantized": {
        "q": np.random.default_rng(0).integers(-127, 128, (5, 8)),
        "scale": np.linspace(0.01, 0.02, 8),
        "zero": np.arange(-4, 4),
    }
}
MODELS = ["resnet", "transformer", "lstm", *NETS]


@dataclass
class Case:
    """A model of MODELS, analysed twice, and once more for each kind of group with the units of one permuted.

    Made once for all criteria: scoring leaves an analysis as it was.
    """

    path: Path
    analysis: Analysis
    again: Analysis
    permuted: list[tuple[str, npt.NDArray[np.intp], Analysis]]
    found: dict[str, dict[str, Scores]] = field(default_factory=dict)

    def scores(self, name: str) -> dict[str, Scores]:
        """By a criterion, of all groups of the first analysis; computed once."""
        if name not in self.found:
            self.found[name] = scores(name, self.analysis)
        return self.found[name]


_cases: dict[str, Case] = {}


@pytest.fixture
def case(request: pytest.FixtureRequest, digits: dict[str, Path], build: Build, tmp_path: Path) -> Case:
    """The case that the parameter names."""
    name = request.param
    if name not in _cases:
        path = build(NETS[name], name=name, **ARRAYS.get(name, {})) if name in NETS else digits[name]
        made = Case(path, inspect(path), inspect(path), [])
        rng = np.random.default_rng(0)
        for kind, group in {group.kind: group for group in made.analysis.groups}.items():
            order = rng.permutation(group.units)
            write_permuted(path, tmp_path / f"{kind}.onnx", group.id, order)
            made.permuted.append((group.id, order, inspect(tmp_path / f"{kind}.onnx")))
        _cases[name] = made
    return _cases[name]


def scores(name: str, analysis: Analysis, seed: int = 0, groups: list[Group] | None = None) -> dict[str, Scores]:
    labelled = "labels" in criteria[name].needs
    data = random_data(analysis, labelled=labelled) if criteria[name].needs_data else None
    # the labels made up fit no loss of these models
    settings = {"loss": "reconstruction"} if labelled and "gradients" in criteria[name].needs else {}
    wanted = analysis.groups if groups is None else groups
    try:
        return score_model(analysis, wanted, name, data, seed=seed, **settings)
    except MissingExtraError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", MODELS, indirect=True)
def test_one_finite_float_per_unit_and_the_same_again(case: Case, name: str) -> None:
    first, again = case.scores(name), scores(name, case.again)
    assert {group.id: group.units for group in case.analysis.groups} == {
        group: len(each) for group, each in first.items()
    }
    for group, values in first.items():
        assert values.dtype == np.float64
        assert np.isfinite(values).all()
        np.testing.assert_array_equal(again[group], values)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", ["transformer"], indirect=True)
def test_scores_do_not_depend_on_which_groups_are_asked_for(case: Case, name: str) -> None:
    together = case.scores(name)
    backwards = scores(name, case.analysis, groups=case.analysis.groups[::-1])
    for group in case.analysis.groups:
        np.testing.assert_array_equal(backwards[group.id], together[group.id])
    last = case.analysis.groups[-1]
    np.testing.assert_array_equal(scores(name, case.analysis, groups=[last])[last.id], together[last.id])


NEURONS = """
    net (float[batch, 5] x) => (float[batch, 3] y)
    <float[5, 8] w, float[8, 3] v>
    { h = MatMul(x, w)  y = MatMul(h, v) }
"""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fill", [0.0, 1.0, -0.25])
def test_units_that_are_all_equal_score_finite(build: Build, fill: float, name: str) -> None:
    path = build(NEURONS, w=np.full((5, 8), fill), v=np.full((8, 3), fill))
    (values,) = scores(name, inspect(path)).values()
    assert values.shape == (8,)
    assert np.isfinite(values).all()


@pytest.mark.parametrize("name", NAMES)
def test_weights_that_are_not_finite_score_finite(build: Build, name: str) -> None:
    w = np.ones((5, 8))
    w[0] = [np.nan, np.inf, -np.inf, 0, 1, 2, 3, 1e38]
    (values,) = scores(name, inspect(build(NEURONS, w=w))).values()
    assert np.isfinite(values).all()


def entries(dim: Dim, atom: Atom, order: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Where each entry of `dim` comes from when the units of `atom` are put in `order`."""
    dim = resolve(dim)
    if isinstance(dim, Atom):
        return order if dim is atom else np.arange(dim.size)
    if isinstance(dim, Concat):
        parts = list(terms(dim))
        starts = np.cumsum([0] + [part.size for part in parts[:-1]])
        return np.concatenate([start + entries(part, atom, order) for start, part in zip(starts, parts, strict=True)])
    places = np.zeros(1, dtype=np.intp)
    for part in factors(dim):
        places = (places[:, None] * part.size + entries(part, atom, order)).ravel()
    return places


def write_permuted(path: Path, target: Path, group_id: str, order: npt.NDArray[np.intp]) -> None:
    """Write the model with the units of one group in another order."""
    analysis = inspect(path)
    (group,) = [group for group in analysis.groups if group.id == group_id]
    model = onnx.load(path)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for place in group.occurrences:
        if place.tensor not in tensors:
            continue  # a copy that Canonicalize made of a filler: all entries are equal
        tensor = tensors[place.tensor]
        array = onnx.numpy_helper.to_array(tensor)
        array = np.take(array, entries(place.dim, group.atom, order), axis=place.axis)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    onnx.save_model(model, target)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in CHANCE])
@pytest.mark.parametrize("case", MODELS, indirect=True)
def test_permuted_units_get_permuted_scores(case: Case, name: str) -> None:
    before = case.scores(name)
    tolerance = 1e-3 if criteria[name].needs_data else 1e-6  # a runtime sums in float32, in another order
    for group, order, changed in case.permuted:
        values = before[group]
        after = scores(name, changed, groups=[each for each in changed.groups if each.id == group])
        np.testing.assert_allclose(after[group], values[order], rtol=tolerance, atol=tolerance * np.abs(values).max())


@pytest.mark.parametrize("name", NAMES)
def test_says_what_it_is_in_one_line(name: str) -> None:
    assert 3 <= len(criteria[name].summary.split()) <= 25
    assert criteria[name].cost


@pytest.mark.parametrize("name", NAMES)
def test_states_its_source(name: str) -> None:
    """A paper with its year, and the place in it."""
    assert re.search(r" (19|20)\d\d\b.*(equation|section|algorithm)", criteria[name].source)


@pytest.mark.parametrize("name", NAMES)
def test_says_what_it_needs(name: str) -> None:
    assert set(criteria[name].needs) <= set(NEEDS)
    assert criteria[name].needs or name in CHANCE
