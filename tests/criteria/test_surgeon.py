"""The surgeon's errors against least squares on the rows themselves, solved by numpy."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest

from onnxprune.data.base import Batch, Data
from onnxprune.pipeline.run import inspect
from onnxprune.statistics.activations import Activations
from onnxprune.statistics.windows import Windows
from onnxprune.steps.base import Context
from onnxprune.steps.prune.criteria import _observed
from onnxprune.steps.prune.criteria import obs as surgeon
from onnxprune.steps.prune.criteria._observed import Observations, _over_taps
from onnxprune.steps.prune.criteria.base import ScoringContext, WeightReader
from onnxprune.steps.prune.criteria.obs import SurgeonProblem, _greedy
from onnxprune.steps.prune.score import score_model, score_with
from onnxprune.steps.recover.step import Recover
from tests.conftest import Build

Matrix = npt.NDArray[np.float64]
UNITS, OUTPUTS, ROWS = 6, 4, 300


def setting(taps: int = 1) -> tuple[Matrix, Matrix, npt.NDArray[np.int64]]:
    """Centered correlated rows, a matrix, and the unit of each feature."""
    rng = np.random.default_rng(0)
    features = UNITS * taps
    rows = rng.standard_normal((ROWS, features)) @ rng.standard_normal((features, features))
    return rows - rows.mean(0), rng.standard_normal((features, OUTPUTS)), np.repeat(np.arange(UNITS), taps)


def least_squares(rows: Matrix, matrix: Matrix, keep: npt.NDArray[np.bool_]) -> float:
    """Mean squared error, with the surgeon's ridge, of the best matrix on the features that are kept.

    The ridge draws towards the matrix as it was: |rows w' - rows w|^2 / n + ridge |w' - w|^2.
    """
    covariance = rows.T @ rows / len(rows)
    ridge = surgeon._RIDGE * np.trace(covariance) / len(covariance)
    design = np.vstack([rows / np.sqrt(len(rows)), np.sqrt(ridge) * np.eye(rows.shape[1])])
    target = design @ matrix
    found = np.linalg.lstsq(design[:, keep], target, rcond=None)[0]
    return float(((design[:, keep] @ found - target) ** 2).sum())


def problem(rows: Matrix, matrix: Matrix, unit_of: npt.NDArray[np.int64], variance: float = 1.0) -> SurgeonProblem:
    return SurgeonProblem(rows.T @ rows / len(rows), matrix, unit_of, UNITS, variance)


@pytest.mark.parametrize("taps", [1, 3])
def test_error_of_a_unit_is_that_of_least_squares_without_it(taps: int) -> None:
    rows, matrix, unit_of = setting(taps)
    found = problem(rows, matrix, unit_of).errors(np.arange(UNITS))
    due = [least_squares(rows, matrix, unit_of != unit) for unit in range(UNITS)]
    np.testing.assert_allclose(found, due, rtol=1e-6)


@pytest.mark.parametrize("taps", [1, 3])
@pytest.mark.parametrize("gone", [(0,), (4, 1), (5, 0, 2)])
def test_errors_add_up_to_that_of_the_set(taps: int, gone: tuple[int, ...]) -> None:
    """After each removal the next error is what it adds, whatever the order."""
    rows, matrix, unit_of = setting(taps)
    state = problem(rows, matrix, unit_of)
    total = 0.0
    for unit in gone:
        total += float(state.errors(np.array([unit]))[0])
        state.remove(np.array([unit]))
    assert total == pytest.approx(least_squares(rows, matrix, ~np.isin(unit_of, gone)), rel=1e-6)


def test_weights_left_are_those_of_least_squares() -> None:
    rows, matrix, unit_of = setting(2)
    state = problem(rows, matrix, unit_of)
    state.remove(np.array([1, 4]))
    keep = ~np.isin(unit_of, (1, 4))
    covariance = rows.T @ rows / ROWS
    covariance += surgeon._RIDGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    due = np.linalg.solve(covariance[np.ix_(keep, keep)], covariance[keep] @ matrix)
    left = state.matrix[state.members[[0, 2, 3, 5]].ravel()]
    np.testing.assert_allclose(left, due, rtol=1e-6, atol=1e-8)


def test_greedy_order_is_that_of_trying_every_unit() -> None:
    rows, matrix, unit_of = setting(2)
    scores = _greedy([problem(rows, matrix, unit_of)], np.zeros(UNITS))
    gone: list[int] = []
    while len(gone) < UNITS - 1:
        left = [unit for unit in range(UNITS) if unit not in gone]
        errors = {unit: least_squares(rows, matrix, ~np.isin(unit_of, [*gone, unit])) for unit in left}
        gone.append(min(left, key=errors.__getitem__))
    assert list(np.argsort(scores))[:-1] == gone


@pytest.mark.parametrize("units", [128, 256])
def test_of_planted_twins_in_a_wide_group_one_goes(units: int) -> None:
    """Each makes up for the other at no cost, so both are among the cheapest until one has gone."""
    rng = np.random.default_rng(0)
    pairs = units // 4
    rows = rng.standard_normal((4 * units, units))
    rows[:, pairs : 2 * pairs] = rows[:, :pairs]
    order = rng.permutation(units)
    rows = (rows - rows.mean(0))[:, order]
    matrix = rng.standard_normal((units, OUTPUTS))
    state = SurgeonProblem(rows.T @ rows / len(rows), matrix, np.arange(units), units, (rows @ matrix).var(0).sum())
    chosen = np.argsort(_greedy([state], np.zeros(units)))[:pairs]
    assert sorted(order[chosen] % pairs) == list(range(pairs))
    assert (order[chosen] < 2 * pairs).all()
    keep = ~np.isin(np.arange(units), chosen)
    assert least_squares(rows, matrix, keep) < 0.005 * (rows @ matrix).var(0).sum()


@pytest.mark.parametrize("rounds", [2, 3, 7])
def test_a_few_at_once_go_in_the_order_of_one_at_a_time(rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same units at the same costs, several readers and a fixed cost included."""
    rng = np.random.default_rng(1)
    units, taps = 24, 2
    features = units * taps
    unit_of = rng.permutation(np.repeat(np.arange(units), taps))

    def problems() -> list[SurgeonProblem]:
        rng = np.random.default_rng(2)
        found = []
        for outputs in (3, 5):
            rows = rng.standard_normal((200, features)) @ rng.standard_normal((features, features))
            covariance = np.cov(rows.T)
            found.append(SurgeonProblem(covariance, rng.standard_normal((features, outputs)), unit_of, units, 300.0))
        return found

    fixed = rng.random(units) * 0.1
    due = _greedy(problems(), fixed)
    monkeypatch.setattr(surgeon, "_ROUNDS", rounds)
    found = _greedy(problems(), fixed)
    share = np.argsort(due)[: units // 2]
    assert set(np.argsort(found)[: units // 2]) == set(share)
    np.testing.assert_allclose(found[share], due[share], rtol=1e-6)


def test_where_covariances_are_a_product_its_factors_say_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors by channels and taps are those of the whole windows, before and after a removal."""
    monkeypatch.setattr(surgeon, "_RIDGE", 1e-9)
    rng = np.random.default_rng(3)
    channels, taps = 5, 3
    between, within = (np.cov(rng.standard_normal((size, 40))) for size in (channels, taps))
    whole = np.kron(between, within)
    rows = rng.standard_normal((200, channels * taps))
    rows -= rows.mean(0)
    rows = np.linalg.solve(np.linalg.cholesky(rows.T @ rows / len(rows)), rows.T).T @ np.linalg.cholesky(whole).T
    windows = Windows(lambda value, batch: iter([value[None]]), taps)
    for part in (rows[:70], rows[70:]):
        windows.update(part, Batch({}))
    matrix = rng.standard_normal((channels * taps, OUTPUTS))
    found_between, found_within = windows.factors(0)
    np.testing.assert_allclose(np.kron(found_between, found_within), whole, rtol=1e-6, atol=1e-9)
    every = np.arange(channels)
    parts = SurgeonProblem(found_between, _over_taps(matrix, found_within), every, channels, 2.0)
    due = SurgeonProblem(whole, matrix, np.repeat(every, taps), channels, 2.0)
    np.testing.assert_allclose(parts.errors(every), due.errors(every), rtol=1e-4)
    for state in (parts, due):
        state.remove(np.array([2]))
    left = np.array([0, 1, 3, 4])
    np.testing.assert_allclose(parts.errors(left), due.errors(left), rtol=1e-4)


def test_wide_windows_rank_nearly_as_whole_ones(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of the convolution that reads them keep apart; a unit that is read by little costs little in both."""
    weight = np.random.default_rng(0).standard_normal((4, 6, 3))
    weight[:, 1] *= 1e-3
    analysis = inspect(build(GROUPED, b=weight))
    inner = next(group for group in analysis.groups if group.units == 6)
    whole = score_model(analysis, [inner], "obs", data(4, 9))[inner.id]
    monkeypatch.setattr(_observed, "_MOST_FEATURES", 4)
    parts = score_model(analysis, [inner], "obs", data(4, 9))[inner.id]
    assert not np.array_equal(parts, whole)
    assert np.argmin(parts) == np.argmin(whole) == 1
    np.testing.assert_allclose(parts, whole, rtol=0.35)


def test_greedy_set_is_near_the_best_of_all_sets() -> None:
    rows, matrix, unit_of = setting(1)
    scores = _greedy([problem(rows, matrix, unit_of)], np.zeros(UNITS))
    chosen = np.argsort(scores)[:3]
    errors = [least_squares(rows, matrix, ~np.isin(unit_of, gone)) for gone in combinations(range(UNITS), 3)]
    assert least_squares(rows, matrix, ~np.isin(unit_of, chosen)) <= np.quantile(errors, 0.15)


def test_several_readers_are_added_in_shares_of_their_variance() -> None:
    rows, matrix, unit_of = setting(1)
    both = [problem(rows, matrix, unit_of, 2.0), problem(rows, 3 * matrix, unit_of, 6.0)]
    single = _greedy([problem(rows, matrix, unit_of)], np.zeros(UNITS))
    np.testing.assert_allclose(_greedy(both, np.zeros(UNITS)), (1 / 2 + 9 / 6) * single, rtol=1e-6)


PERCEPTRON = """
    net (float[batch, 5] x) => (float[batch, 4] y)
    <float[5, 6] a, float[6, 4] b>
    { h = MatMul(x, a)  r = Relu(h)  y = MatMul(r, b) }
"""
GROUPED = """
    net (float[batch, 4, 9] x) => (float[batch, 4, 7] y)
    <float[12, 4, 1] a, float[4, 6, 3] b>
    { h = Conv(x, a)  r = Relu(h)  y = Conv<group = 2>(r, b) }
"""
HEADS = """
    net (float[batch, 6, 5] x) => (float[batch, 6, 3] y)
    <float[5, 12] q, float[5, 12] k, float[5, 12] v, float[12, 3] o,
     int64[4] apart = {0, 0, 4, 3}, int64[3] together = {0, 0, 12}>
    {
        a = MatMul(x, q)  b = MatMul(x, k)  c = MatMul(x, v)
        d = Reshape(a, apart)  e = Reshape(b, apart)  f = Reshape(c, apart)
        g = Transpose<perm = [0, 2, 1, 3]>(d)  h = Transpose<perm = [0, 2, 3, 1]>(e)
        i = Transpose<perm = [0, 2, 1, 3]>(f)
        s = MatMul(g, h)  p = Softmax(s)  t = MatMul(p, i)
        u = Transpose<perm = [0, 2, 1, 3]>(t)  w = Reshape(u, together)  y = MatMul(w, o)
    }
"""


def data(*shape: int) -> Data:
    every = np.random.default_rng(1).standard_normal((60, *shape)).astype(np.float32)
    return Data("made up", False, lambda: iter([Batch({"x": every[:40]}), Batch({"x": every[40:]})]))


def test_copy_of_a_unit_is_the_first_to_go(build: Build) -> None:
    """Its twin makes up for it at no cost; afterwards the twin is as dear as any."""
    weight = np.random.default_rng(0).standard_normal((5, 6))
    weight[:, 4] = weight[:, 1]
    analysis = inspect(build(PERCEPTRON, a=weight))
    (scores,) = score_model(analysis, analysis.groups, "obs", data(5)).values()
    assert np.argmin(scores) in (1, 4)
    assert scores.min() < 0.05 * np.sort(scores)[1]


def test_scores_of_a_perceptron_are_errors_of_least_squares(build: Build) -> None:
    analysis = inspect(build(PERCEPTRON))
    (scores,) = score_model(analysis, analysis.groups, "obs", data(5)).values()
    x = np.concatenate([batch.feed["x"] for batch in data(5).batches()]).astype(np.float64)
    weights = {name: value.const_value.numpy() for name, value in analysis.model.graph.initializers.items()}
    rows = np.maximum(x @ weights["a"], 0)
    rows = rows - rows.mean(0)
    first = int(np.argmin(scores))
    due = least_squares(rows, weights["b"].astype(np.float64), np.arange(6) != first)
    variance = (rows @ weights["b"]).var(0).sum()
    assert scores[first] == pytest.approx(due / variance, rel=1e-3)


def test_groups_of_a_convolution_each_have_a_problem(build: Build) -> None:
    """The units are the places within a group; they are read once in each."""
    analysis = inspect(build(GROUPED))
    inner = next(group for group in analysis.groups if group.units == 6)
    scores = score_model(analysis, [inner], "obs", data(4, 9))[inner.id]
    assert scores.shape == (6,)
    assert len(set(scores)) == 6
    assert (scores > 0).all()


def test_heads_are_scored_by_what_the_projection_behind_them_loses(build: Build) -> None:
    value = np.random.default_rng(0).standard_normal((5, 12))
    value[:, 6:9] = 0  # the third head gives nothing
    analysis = inspect(build(HEADS, v=value))
    heads = next(group for group in analysis.groups if group.kind == "heads")
    scores = score_model(analysis, [heads], "obs", data(6, 5))[heads.id]
    assert np.argmin(scores) == 2
    assert scores[2] < 1e-2 * np.sort(scores)[1]


def test_in_very_wide_layers_units_cost_what_they_give(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variance of what comes from a unit, over that of the output: no inverse of thousands of features."""
    monkeypatch.setattr(_observed, "_MOST_CHANNELS", 5)
    analysis = inspect(build(PERCEPTRON))
    (scores,) = score_model(analysis, analysis.groups, "obs", data(5)).values()
    x = np.concatenate([batch.feed["x"] for batch in data(5).batches()]).astype(np.float64)
    weights = {name: value.const_value.numpy() for name, value in analysis.model.graph.initializers.items()}
    rows = np.maximum(x @ weights["a"], 0)
    due = rows.var(0) * (weights["b"].astype(np.float64) ** 2).sum(1) / (rows @ weights["b"]).var(0).sum()
    np.testing.assert_allclose(scores, due, rtol=1e-4)


RECURRENT = """
    net (float[steps, 7, 5] x) => (float[steps, 1, 7, 3] y)
    <float[5, 6] a, float[1, 3, 6] w, float[1, 3, 3] r>
    { h = MatMul(x, a)  y = RNN<hidden_size = 3>(h, w, r) }
"""


def test_units_that_a_recurrent_layer_reads_cost_what_its_gates_lose(build: Build) -> None:
    """The results are inside the node; the variance that errors are relative to follows from the rows."""
    analysis = inspect(build(RECURRENT))
    (group,) = (group for group in analysis.groups if group.units == 6)
    scores = score_model(analysis, [group], "obs", data(7, 5))[group.id]
    weights = {name: value.const_value.numpy() for name, value in analysis.model.graph.initializers.items()}
    rows = np.concatenate([batch.feed["x"] for batch in data(7, 5).batches()]).reshape(-1, 5) @ weights["a"]
    rows, matrix = rows.astype(np.float64) - rows.mean(0), weights["w"][0].T.astype(np.float64)
    errors = [least_squares(rows, matrix, np.arange(6) != unit) for unit in range(6)]
    np.testing.assert_allclose(scores.min(), min(errors) / (rows @ matrix).var(0).sum(), rtol=1e-3)
    assert scores.argmin() == np.argmin(errors)


def test_units_that_only_an_operator_without_a_form_reads_cost_their_share_of_the_variance(build: Build) -> None:
    """Nothing is fitted there, so the surgeon's order, in which others make up for a unit, would be wrong."""
    analysis = inspect(build(PERCEPTRON.replace("MatMul(r, b)", "Gemm<beta = 0.0>(r, b)")))
    (scores,) = score_model(analysis, analysis.groups, "obs", data(5)).values()
    x = np.concatenate([batch.feed["x"] for batch in data(5).batches()])
    seen = np.maximum(x @ analysis.model.graph.initializers["a"].const_value.numpy(), 0).var(0)
    np.testing.assert_allclose(scores, seen / seen.sum(), rtol=1e-4)


def test_where_no_fit_follows_no_weights_make_up_for_others(build: Build) -> None:
    """With a recovery that shifts biases only, the surgeon's order would count on weights that nobody writes."""
    analysis = inspect(build(PERCEPTRON))
    found = {
        method: score_with(Context(data=data(5), following=(Recover(method),)), analysis, analysis.groups, "obs")
        for method in ("reconstruct", "bias", "none")
    }
    plain = score_model(analysis, analysis.groups, "obs", data(5))
    (group,) = plain
    np.testing.assert_array_equal(found["reconstruct"][group], plain[group])
    x = np.concatenate([batch.feed["x"] for batch in data(5).batches()]).astype(np.float64)
    weights = {name: value.const_value.numpy() for name, value in analysis.model.graph.initializers.items()}
    rows = np.maximum(x @ weights["a"], 0)
    due = rows.var(0) * (weights["b"].astype(np.float64) ** 2).sum(1) / (rows @ weights["b"]).var(0).sum()
    for method in ("bias", "none"):
        np.testing.assert_allclose(found[method][group], due, rtol=1e-4)


def test_layers_that_no_one_matrix_fits_take_no_compensation(build: Build) -> None:
    """Two readers see parts of a weight that overlap: recovery leaves them, and units cost what they give."""
    graph = """
        net (float[n, 5] x) => (float[n, 3] y, float[n, 3] z)
        <float[5, 6] a, float[6, 4] b, int64[3] first = {0, 1, 2}, int64[3] second = {1, 2, 3}>
        {
            h = MatMul(x, a)  r = Relu(h)
            c = Gather<axis = 1>(b, first)  y = MatMul(r, c)  d = Gather<axis = 1>(b, second)  z = MatMul(r, d)
        }
    """
    analysis = inspect(build(graph))
    (group,) = (group for group in analysis.groups if group.units == 6)
    scores = score_model(analysis, [group], "obs", data(5))[group.id]
    weights = {name: value.const_value.numpy() for name, value in analysis.model.graph.initializers.items()}
    rows = np.maximum(np.concatenate([batch.feed["x"] for batch in data(5).batches()]) @ weights["a"], 0)
    parts = (weights["b"][:, :3], weights["b"][:, 1:])
    due = sum(rows.var(0) * (part.astype(np.float64) ** 2).sum(1) / (rows @ part).var(0).sum() for part in parts)
    np.testing.assert_allclose(scores, due, rtol=1e-4)


def test_steps_of_an_unrolled_cell_share_the_covariance_of_their_weight(build: Build) -> None:
    """One of them for each weight, not for each step: of the rows of all steps together."""
    graph = """
        net (float[n, 5] x) => (float[n, 3] y) <float[5, 6] a, float[6, 6] r, float[6, 3] b>
        {
            i = MatMul(x, a)  h1 = Tanh(i)  g1 = MatMul(h1, r)  s1 = Add(i, g1)  h2 = Tanh(s1)
            g2 = MatMul(h2, r)  s2 = Add(i, g2)  h3 = Tanh(s2)  g3 = MatMul(h3, r)  s3 = Add(i, g3)  h4 = Tanh(s3)
            y = MatMul(h4, b)
        }
    """
    analysis = inspect(build(graph))
    given = data(5)
    context = ScoringContext(analysis, WeightReader(analysis), observed=Activations(analysis, given))
    observations = Observations(context)
    found = {each.layer.x: each.rows for group in analysis.groups for each in observations.of(group)}
    assert found["h1"] is found["h2"] is found["h3"]
    assert len({id(rows) for rows in found.values()}) == 2  # nobody asks for the rows of an input
    values = dict.fromkeys(("h1", "h2", "h3"))
    rows = [
        value[name].astype(np.float64) for _, value in Activations(analysis, given).stream(values) for name in values
    ]
    due = np.cov(np.concatenate(rows).T, bias=True)
    np.testing.assert_allclose(found["h1"].covariance[0], due, rtol=1e-5, atol=1e-7)  # type: ignore[union-attr]


CONVOLUTIONS = """
    net (float[n, 3, SIZE] x) => (float[n, 2, SIZE] y) <float[5, 3, 1, 1] a, float[2, 5, 1, 1] b>
    { g = Conv(x, a)  f = Relu(g)  y = Conv(f, b) }
"""


def test_images_of_another_size_than_the_analysis_has_are_seen_at_places_that_they_have(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_observed, "_MAX_ROWS", 7 * 40)
    found = []
    for size in ("h, w", "4, 3"):
        analysis = inspect(build(CONVOLUTIONS.replace("SIZE", size)))
        found.append(score_model(analysis, analysis.groups, "obs", data(3, 4, 3)))
    dynamic, static = found
    assert dynamic.keys() == static.keys()
    for group, scores in static.items():
        np.testing.assert_allclose(dynamic[group], scores, rtol=1e-6)


CHAIN = """
    net (float[n, 6] x) => (float[n, 3] y) <float[6, 8] a, float[8, 9] b, float[9, 10] c, float[10, 3] d>
    {
        h1 = MatMul(x, a)  r1 = Relu(h1)  h2 = MatMul(r1, b)  r2 = Relu(h2)  h3 = MatMul(r2, c)  r3 = Relu(h3)
        y = MatMul(r3, d)
    }
"""


def test_layers_are_observed_a_few_at_a_time_where_memory_is_short(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same scores from several runs over the data; never more layers at once than memory holds matrices of."""
    analysis, samples = inspect(build(CHAIN)), data(6)

    def scores() -> tuple[list[Matrix], list[int]]:
        seen = Activations(analysis, samples)
        context, held = ScoringContext(analysis, WeightReader(analysis), observed=seen), []
        found = []
        for group in analysis.groups:
            found.append(surgeon.obs(group, context))
            held.append(len(seen.once("surgeon", dict)._found))  # type: ignore[attr-defined]
        return found, held

    whole, together = scores()
    assert together == [3, 3, 3]
    monkeypatch.setattr(_observed, "bytes_for", lambda _: 8 * (9**2 + 10**2) * 3 // 2)
    parts, apart = scores()
    assert apart == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(parts), np.concatenate(whole))
    monkeypatch.setattr(_observed, "bytes_for", lambda _: 8 * 9**2 * 3 // 2)
    diagonal, _ = scores()  # not even the last layer alone: it has variances only
    np.testing.assert_array_equal(np.concatenate(diagonal[:2]), np.concatenate(whole[:2]))
    assert (diagonal[2] != whole[2]).all()
