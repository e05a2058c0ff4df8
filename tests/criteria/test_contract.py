"""What every criterion promises, asserted for every one that is registered: a new file is under this test.

- One finite float per unit, the same in every run.
- Units have no order: with the units of a group permuted in the weights, the scores are permuted.
- It says where it comes from.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from onnxprune.coupling import Analysis
from onnxprune.criteria.base import Context, Scores, WeightReader, criteria, score_groups
from onnxprune.dims import Atom, Concat, Dim, factors, resolve, terms
from onnxprune.errors import UsageError
from onnxprune.pipeline import inspect
from tests.conftest import Build

NAMES = criteria.names()
CHANCE = {"random"}  # scores that do not look at the weights
MODELS = ["resnet", "transformer", "lstm"]


def scores(name: str, analysis: Analysis, seed: int = 0) -> dict[str, Scores]:
    return score_groups(name, analysis.groups, Context(analysis, WeightReader(analysis), seed))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("model", MODELS)
def test_one_finite_float_per_unit_and_the_same_again(digits: dict[str, Path], model: str, name: str) -> None:
    analysis = inspect(digits[model])
    first = scores(name, analysis)
    assert {group.id: group.units for group in analysis.groups} == {group: len(each) for group, each in first.items()}
    for values in first.values():
        assert values.dtype == np.float64
        assert np.isfinite(values).all()
    for group, values in scores(name, inspect(digits[model])).items():
        np.testing.assert_array_equal(values, first[group])


@pytest.mark.parametrize("name", NAMES)
def test_scores_do_not_depend_on_which_groups_are_asked_for(digits: dict[str, Path], name: str) -> None:
    analysis = inspect(digits["transformer"])
    together = scores(name, analysis)
    context = Context(analysis, WeightReader(analysis))
    for group in reversed(analysis.groups):
        np.testing.assert_array_equal(criteria[name](group, context), together[group.id])


@pytest.mark.parametrize("name", NAMES)
def test_weights_that_are_not_finite_score_finite(build: Build, name: str) -> None:
    w = np.ones((5, 8))
    w[0] = [np.nan, np.inf, -np.inf, 0, 1, 2, 3, 1e38]
    path = build(
        """
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w, float[8, 3] v>
        { h = MatMul(x, w)  y = MatMul(h, v) }
        """,
        w=w,
    )
    (values,) = scores(name, inspect(path)).values()
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


def permuted(path: Path, target: Path, group_id: str, order: npt.NDArray[np.intp]) -> None:
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
@pytest.mark.parametrize("model", MODELS)
def test_permuted_units_get_permuted_scores(digits: dict[str, Path], tmp_path: Path, model: str, name: str) -> None:
    analysis = inspect(digits[model])
    before = scores(name, analysis)
    rng = np.random.default_rng(0)
    for group in {group.kind: group.id for group in analysis.groups}.values():
        values = before[group]
        order = rng.permutation(len(values))
        permuted(digits[model], tmp_path / "permuted.onnx", group, order)
        after = scores(name, inspect(tmp_path / "permuted.onnx"))
        np.testing.assert_allclose(after[group], values[order], rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_says_what_it_is_in_one_line(name: str) -> None:
    assert 3 <= len(criteria[name].summary.split()) <= 25
    assert criteria[name].cost


@pytest.mark.parametrize("name", NAMES)
def test_states_its_source(name: str) -> None:
    """A paper with its year, and the place in it."""
    assert re.search(r" (19|20)\d\d\b.*(equation|section|algorithm)", criteria[name].source)


def test_unknown_criterion_suggests_the_nearest(digits: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="unknown criterion 'L1'; did you mean 'l1'"):
        scores("L1", inspect(digits["lstm"]))
