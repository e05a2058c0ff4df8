"""From scores and a strength to the number of units that each group loses, and which ones."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxprune.analysis.groups import Analysis
from onnxprune.errors import UsageError
from onnxprune.pipeline.run import inspect
from onnxprune.steps.prune.allocation._knapsack import choose_levels, levels_of
from onnxprune.steps.prune.allocation._nesting import axes
from onnxprune.steps.prune.allocation.base import AllocationProblem, Curve, Scores, allocations, share, weakest
from onnxprune.steps.prune.score import score_model
from tests.conftest import Build

MEASURED = [name for name in allocations.names() if allocations[name].needs]
COMPUTED = [name for name in allocations.names() if not allocations[name].needs]

STRENGTHS = st.floats(0, 1)


@pytest.mark.parametrize(
    ("ratio", "units", "lost"),
    [
        (0.3, 10, 3),  # although 0.3 * 10 is less than 3 in floating point, and 0.1 * 3 more than 0.3
        (0.1, 30, 3),
        (0.7, 10, 7),
        (0.29, 100, 29),
        (0.5, 7, 3),  # rounded down
        (0.0, 8, 0),
        (0.1, 8, 0),
        (0.99, 8, 7),
        (0.999999, 2, 1),  # never the last one
        (0.9, 1, 0),
    ],
)
def test_share(ratio: float, units: int, lost: int) -> None:
    assert share(ratio, units) == lost


@given(st.integers(0, 999), st.integers(1, 5_000))
def test_share_is_exact_for_decimal_ratios(thousandths: int, units: int) -> None:
    exact = Fraction(thousandths, 1000) * units
    assert share(thousandths / 1000, units) == min(int(exact), units - 1)


def test_weakest_drops_the_lowest_scores() -> None:
    np.testing.assert_array_equal(weakest(np.array([3.0, 1.0, 2.0, 0.5]), 2), [True, False, True, False])
    assert weakest(np.array([3.0, 1.0]), 0).all()


def test_ties_go_in_order() -> None:
    np.testing.assert_array_equal(weakest(np.ones(5), 2), [False, False, True, True, True])


# -- problems


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    """Four layers in a row, groups of 10, 4 and 3 units."""
    build = _builder(tmp_path_factory.mktemp("chain"))
    return inspect(
        build("""
            net (float[batch, 5] x) => (float[batch, 7] y)
            <float[5, 10] w1, float[10, 4] w2, float[4, 3] w3, float[3, 7] w4>
            {
                h = MatMul(x, w1)  r = Relu(h)  k = MatMul(r, w2)  s = Relu(k)
                l = MatMul(s, w3)  t = Relu(l)  y = MatMul(t, w4)
            }
        """)
    )


@pytest.fixture(scope="module")
def residual(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    """A stream of 12 units through three blocks of 12 inner units each."""
    blocks = "".join(
        f"a{i} = MatMul(x{i}, in{i})  b{i} = Relu(a{i})  c{i} = MatMul(b{i}, out{i})  x{i + 1} = Add(x{i}, c{i})\n"
        for i in range(3)
    )
    weights = ", ".join(f"float[12, 12] in{i}, float[12, 12] out{i}" for i in range(3))
    build = _builder(tmp_path_factory.mktemp("residual"))
    return inspect(
        build(f"""
            net (float[batch, 5] x) => (float[batch, 7] y)
            <float[5, 12] stem, {weights}, float[12, 7] head>
            {{ x0 = MatMul(x, stem)  {blocks}  y = MatMul(x3, head) }}
        """)
    )


def _builder(folder: Path) -> Build:
    import tests.conftest as shared

    return shared.build.__wrapped__(folder)  # type: ignore[attr-defined,no-any-return]


def problem(analysis: Analysis, scores: Mapping[str, Scores] | None = None, **options: object) -> AllocationProblem:
    scores = score_model(analysis, analysis.groups, "l1") if scores is None else scores
    most = {group.id: group.units - 1 for group in analysis.groups}
    return AllocationProblem(analysis, analysis.groups, scores, **{"most": most, **options})  # type: ignore[arg-type]


def ranks(analysis: Analysis) -> dict[str, Scores]:
    return {group.id: np.arange(1.0, group.units + 1) for group in analysis.groups}


# -- uniform and global


def test_uniform_takes_the_ratio_of_each_group(chain: Analysis) -> None:
    lost = allocations["uniform"](problem(chain))
    assert lost(0.5) == {"w1": 5, "w2": 2, "w3": 1}
    assert lost(0.0) == {"w1": 0, "w2": 0, "w3": 0}
    assert lost(1.0) == {"w1": 9, "w2": 3, "w3": 2}


def two_of_four(build: Build) -> Analysis:
    return inspect(
        build("""
            net (float[batch, 5] x) => (float[batch, 7] y)
            <float[5, 4] a, float[4, 4] b, float[4, 7] c>
            { h = MatMul(x, a)  r = Relu(h)  k = MatMul(r, b)  s = Relu(k)  y = MatMul(s, c) }
        """)
    )


@pytest.mark.parametrize(
    ("a", "b", "t", "lost"),
    [
        ([1.0, 1.0, 1.0, 1.1], [0.1, 0.1, 0.1, 9.0], 0.375, (0, 3)),  # b's weak ones are far below its mean
        ([0.2, 0.4, 0.6, 3.0], [2e6, 4e6, 6e6, 3e7], 0.5, (2, 2)),  # the scale of a group is not seen
        ([1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0], 0.25, (2, 0)),  # ties go in the order of groups
        ([0.0, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0], 0.375, (3, 0)),  # without any weight: first, and one is kept
    ],
)
def test_global_ranks_all_units(build: Build, a: list[float], b: list[float], t: float, lost: tuple[int, int]) -> None:
    found = allocations["global"](problem(two_of_four(build), {"a": np.array(a), "b": np.array(b)}))(t)
    assert (found.get("a", 0), found.get("b", 0)) == lost


def test_global_takes_comparable_scores_as_they_are(build: Build) -> None:
    scores = {"a": np.array([0.5, 1.0, 1.5, 2.0]), "b": np.array([10.0, 20.0, 30.0, 40.0])}
    assert allocations["global"](problem(two_of_four(build), scores))(0.375) == {"a": 2, "b": 1}
    assert allocations["global"](problem(two_of_four(build), scores, comparable=True))(0.375) == {"a": 3}


def test_isomorphic_groups_compete_with_each_other_only(residual: Analysis) -> None:
    """The three inner groups share one ranking, the stream has its own: it loses just its share."""
    stream = next(group.id for group in residual.groups if group.id == "stem")
    scores = {group.id: np.ones(12) for group in residual.groups}
    scores["in0"] = np.r_[np.full(11, 0.01), 100.0]  # weak beside its own mean
    lost = allocations["isomorphic"](problem(residual, scores))(0.25)
    assert lost[stream] == 3
    assert lost["in0"] == 9
    assert sum(lost.values()) == 12


# -- auto


def test_auto_spares_what_many_layers_share(residual: Analysis) -> None:
    asked = problem(residual)
    assert asked.layers == {"stem": 8, "in0": 2, "in1": 2, "in2": 2}
    for t in (0.5, 0.6, 0.7, 0.8):
        lost, uniform = (allocations[scope](asked)(t) for scope in ("auto", "uniform"))
        assert max(lost[group] for group in ("in0", "in1", "in2")) >= uniform["in0"]
        assert lost["stem"] <= uniform["stem"] + 1  # uniform rounds every group down


@pytest.mark.parametrize("name", ["chain", "residual"])
@given(t=STRENGTHS)
@settings(max_examples=30)
def test_auto_removes_the_share_of_all_units(name: str, t: float, request: pytest.FixtureRequest) -> None:
    asked = problem(request.getfixturevalue(name))
    total = sum(group.units for group in asked.groups)
    removed = sum(allocations["auto"](asked)(t).values())
    assert abs(removed - min(t * total, sum(asked.most.values()))) <= 0.5 + 1e-9


@pytest.mark.parametrize("name", ["resnet", "transformer", "lstm"])
def test_auto_removes_half_of_the_units_of_real_networks(digits: dict[str, Path], name: str) -> None:
    asked = problem(inspect(digits[name]))
    total = sum(group.units for group in asked.groups)
    assert sum(allocations["auto"](asked)(0.5).values()) == pytest.approx(total / 2, abs=0.5)


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_auto_removes_the_share_of_an_axis_that_nested_groups_make_up(build: Build, ratio: float) -> None:
    """64 channels in 8 groups of 8: half of them are 32, however groups and channels in a group share that."""
    analysis = inspect(
        build("""
            net (float[batch, 3, 4, 4] x) => (float[batch, 7, 4, 4] y)
            <float[64, 3, 1, 1] a, float[64, 8, 1, 1] b, float[7, 64, 1, 1] c, float[64] scale, float[64] bias>
            {
                h = Conv(x, a)
                k = Conv <group = 8> (h, b)
                n = GroupNormalization <num_groups = 8> (k, scale, bias)
                y = Conv(n, c)
            }
        """)
    )
    asked = problem(analysis)
    assert len(asked.groups) > 1
    lost = allocations["auto"](asked)(ratio)
    kept = {group.id: group.units - lost.get(group.id, 0) for group in asked.groups}
    found = [np.prod([kept[group.id] for group in asked.groups if group.atom in axis]) for axis in axes(asked.groups)]
    whole = [np.prod([group.units for group in asked.groups if group.atom in axis]) for axis in axes(asked.groups)]
    assert max(whole) == 64
    steps = 8 / sum(whole)  # a channel of every group goes at once
    assert sum(found) / sum(whole) == pytest.approx(1 - ratio, abs=steps)


def test_axes_of_groups_that_are_not_nested_are_their_own(chain: Analysis) -> None:
    assert sorted(map(len, axes(chain.groups))) == [1, 1, 1]


# -- damage


def test_damage_is_what_is_gone_over_what_is_left(residual: Analysis) -> None:
    scores = {group.id: np.ones(12) for group in residual.groups}
    scores["in1"] = np.arange(12.0)[::-1]
    damage = problem(residual, scores).damage
    gone = np.arange(12.0)
    np.testing.assert_allclose(damage["in0"], 2 * gone / (12 - gone))
    np.testing.assert_allclose(damage["stem"], 8 * gone / (12 - gone))
    gone = np.concatenate([[0.0], np.cumsum(np.arange(11.0))])
    np.testing.assert_allclose(damage["in1"], 2 * gone / (66 - gone))


def test_damage_of_comparable_scores_keeps_their_scale(chain: Analysis) -> None:
    scores = {group.id: np.full(group.units, 5.0) for group in chain.groups}
    for asked in (problem(chain, scores, comparable=True), problem(chain, scores)):
        first = {group.id: asked.damage[group.id][1] * (group.units - 1) for group in chain.groups}
        expected = {group.id: 5.0 * group.units if asked.comparable else 2.0 for group in chain.groups}
        assert first == pytest.approx(expected)


def test_damage_of_groups_without_weight_and_of_negative_scores(chain: Analysis) -> None:
    asked = problem(chain, {"w1": np.zeros(10), "w2": np.array([-1.0, 0.0, 1.0, 2.0]), "w3": np.ones(3)})
    assert not asked.damage["w1"].any()
    np.testing.assert_allclose(asked.damage["w2"], 2 * np.array([0, 0, 1, 3]) / np.array([6, 6, 5, 3]))


@pytest.mark.parametrize("name", ["chain", "residual"])
@pytest.mark.parametrize("resource", ["macs", "parameters"])
def test_auto_is_what_looking_at_every_unit_every_time_gives(
    name: str, resource: str, request: pytest.FixtureRequest
) -> None:
    asked = problem(request.getfixturevalue(name), resource=resource)
    total = sum(group.units for group in asked.groups)
    order = _exhaustive(asked)
    family = allocations["auto"](asked)
    for count in range(len(order) + 1):
        expected = {group.id: order[:count].count(group.id) for group in asked.groups}
        found = family((count + 0.25) / total)
        assert {group: found.get(group, 0) for group in expected} == expected


def _exhaustive(asked: AllocationProblem) -> list[str]:
    """Every time, what every unit saves is the difference of two whole models."""
    lost = dict.fromkeys((group.id for group in asked.groups), 0)
    order = []
    while any(lost[group] < asked.most[group] for group in lost):
        prices = {}
        for group, count in lost.items():
            if count < asked.most[group]:
                saved = asked.amount(lost) - asked.amount({**lost, group: count + 1})
                prices[group] = (asked.damage[group][count + 1] - asked.damage[group][count]) / saved
        order.append(min(prices, key=lambda group: prices[group]))
        lost[order[-1]] += 1
    return order


# -- knapsack

TABLES = st.lists(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 20)), min_size=1, max_size=4), min_size=1, max_size=4
)


@given(TABLES, st.integers(0, 70))
@settings(max_examples=200)
def test_levels_are_the_best_of_all(tables: list[list[tuple[int, int]]], required: int) -> None:
    """Against trying every combination."""
    damages = [np.array([damage for damage, _ in table], np.float64) for table in tables]
    savings = [np.array([saving for _, saving in table], np.float64) for table in tables]
    every = itertools.product(*(range(len(table)) for table in tables))
    costs = [
        sum(damages[group][level] for group, level in enumerate(levels))
        for levels in every
        if sum(savings[group][level] for group, level in enumerate(levels)) >= required
    ]
    chosen = choose_levels(damages, savings, required)
    if not costs:
        assert chosen is None
        return
    assert chosen is not None
    assert sum(savings[group][level] for group, level in enumerate(chosen)) >= required
    assert sum(damages[group][level] for group, level in enumerate(chosen)) == min(costs)


def test_knapsack_comes_near_the_best_of_all_cuts(chain: Analysis) -> None:
    """Costs of neighbours multiply, so its tables are only right around its answer."""
    asked = problem(chain, ranks(chain))
    every = [range(group.units) for group in asked.groups]
    for t in (0.2, 0.4, 0.6):
        budget = asked.amount(allocations["uniform"](asked)(t))
        found = allocations["knapsack"](asked)(t)
        assert asked.amount(found) <= budget
        cuts = [dict(zip(found, counts, strict=True)) for counts in itertools.product(*every)]
        best = min(_harm(asked, cut) for cut in cuts if asked.amount(cut) <= budget)
        uniform = _harm(asked, allocations["uniform"](asked)(t))
        assert best <= _harm(asked, found) <= uniform
        assert _harm(asked, found) <= 1.1 * best


def _harm(asked: AllocationProblem, lost: Mapping[str, int]) -> float:
    return float(sum(asked.damage[group][count] for group, count in lost.items()))


# -- measured


def test_measured_strategies_say_what_they_lack(chain: Analysis) -> None:
    for name in MEASURED:
        with pytest.raises(UsageError):
            allocations[name](problem(chain))


def test_sensitivity_spares_what_was_measured_to_hurt(chain: Analysis) -> None:
    curves = {
        "w1": Curve((0, 9), (0.0, 0.1)),
        "w2": Curve((0, 3), (0.0, 9.0)),
        "w3": Curve((0, 2), (0.0, 9.0)),
    }
    lost = allocations["sensitivity"](problem(chain, damages=curves))(0.5)
    assert lost["w1"] > 5
    assert lost["w2"] <= 2


def test_latency_takes_only_what_was_measured_and_saves_time(chain: Analysis) -> None:
    """Losing 4 of the first group saves nothing (a step of the kernel), 8 of them do; the last group is slower cut."""
    curves = {
        "w1": Curve((0, 4, 8), (0.0, 0.0, 3e-3)),
        "w2": Curve((0, 2), (0.0, 1e-3)),
        "w3": Curve((0, 2), (0.0, -1e-3)),
    }
    family = allocations["latency"](problem(chain, seconds=curves))
    assert family(0.0) == {"w1": 0, "w2": 0, "w3": 0}
    assert family(0.25) == {"w1": 0, "w2": 2, "w3": 0}
    assert family(1.0) == {"w1": 8, "w2": 2, "w3": 0}


# -- what holds for all of them


@pytest.mark.parametrize("name", ["chain", "residual"])
@pytest.mark.parametrize("scope", COMPUTED)
@given(t=STRENGTHS, limit=st.integers(0, 12), data=st.data())
@settings(max_examples=20)
def test_no_group_loses_more_than_it_may(
    scope: str, name: str, t: float, limit: int, data: st.DataObject, request: pytest.FixtureRequest
) -> None:
    analysis: Analysis = request.getfixturevalue(name)
    scores = {
        group.id: data.draw(hnp.arrays(np.float64, group.units, elements=st.floats(0, 1e6)))
        for group in analysis.groups
    }
    most = {group.id: min(limit, group.units - 1) for group in analysis.groups}
    lost = allocations[scope](problem(analysis, scores, most=most))(t)
    assert set(lost) <= set(most)
    assert all(0 <= count <= most[group] for group, count in lost.items())


@pytest.mark.parametrize("name", ["chain", "residual"])
@pytest.mark.parametrize("scope", COMPUTED)
@given(t=STRENGTHS, data=st.data())
@settings(max_examples=20)
def test_what_has_gone_in_earlier_steps_is_in_every_cut(
    scope: str, name: str, t: float, data: st.DataObject, request: pytest.FixtureRequest
) -> None:
    """And counts: as many units go in all, or as little is left, as without earlier steps."""
    analysis: Analysis = request.getfixturevalue(name)
    scores, removed, gone = {}, {}, {}
    for group in analysis.groups:
        scores[group.id] = data.draw(hnp.arrays(np.float64, group.units, elements=st.floats(0.1, 9)))
        away = data.draw(st.sets(st.integers(0, group.units - 1), max_size=group.units - 1))
        removed[group.id] = np.isin(np.arange(group.units), list(away))
        gone[group.id] = len(away)
    asked = problem(analysis, scores, removed=removed)
    lost = allocations[scope](asked)(t)
    assert all(gone[group] <= lost.get(group, 0) <= asked.most[group] for group in gone)
    total = sum(group.units for group in analysis.groups)
    if scope in ("auto", "global") and share(t, total) >= sum(gone.values()):
        due = min(share(t, total), sum(asked.most.values()))
        assert due <= sum(lost.values()) <= due + (scope == "auto")  # auto rounds to the nearest
    if scope == "uniform":
        assert lost == {group: max(gone[group], count) for group, count in asked.uniform(t).items()}
    if scope == "knapsack":
        assert asked.amount(lost) <= asked.amount(asked.uniform(t)) * (1 + 1e-9)


def test_damage_counts_from_what_has_gone(chain: Analysis) -> None:
    scores = ranks(chain)
    scores["w2"] = np.array([3.0, 9.0, 1.0, 4.0])
    removed = {group.id: np.zeros(group.units, dtype=np.bool_) for group in chain.groups}
    removed["w2"][1] = True
    found = problem(chain, scores, removed=removed).damage["w2"]
    np.testing.assert_allclose(found, 2 * np.array([0, 0, 1 / 7, 4 / 4]))


@pytest.mark.parametrize("name", ["chain", "residual"])
@pytest.mark.parametrize("scope", COMPUTED)
@given(strengths=st.tuples(STRENGTHS, STRENGTHS))
@settings(max_examples=20)
def test_a_higher_strength_never_takes_less(
    scope: str, name: str, strengths: tuple[float, float], request: pytest.FixtureRequest
) -> None:
    asked = problem(request.getfixturevalue(name))
    family = allocations[scope](asked)
    low, high = (family(t) for t in sorted(strengths))
    if allocations[scope].nested:
        assert all(count <= high.get(group, 0) for group, count in low.items())
    else:
        uniform = allocations["uniform"](asked)
        assert all(asked.amount(family(t)) <= asked.amount(uniform(t)) for t in strengths)


@pytest.mark.parametrize("scope", COMPUTED)
def test_strength_goes_from_nothing_to_everything(scope: str, residual: Analysis) -> None:
    asked = problem(residual)
    family = allocations[scope](asked)
    assert sum(family(0.0).values()) == 0
    assert {group: family(1.0)[group] for group in asked.most} == asked.most


def test_levels_reach_from_none_to_the_most(chain: Analysis) -> None:
    levels = levels_of(problem(chain))
    assert levels == {"w1": list(range(10)), "w2": [0, 1, 2, 3], "w3": [0, 1, 2]}
