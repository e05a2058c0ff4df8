"""Axis sizes come out as multiples of a number where they can: of `--round-to`, else of what kernels like."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from onnxprune.dims import kept_size
from onnxprune.pipeline.run import compress, inspect
from onnxprune.steps.base import Context
from onnxprune.steps.prune.allocation.rounding import Multiple, next_larger, round_up
from onnxprune.steps.prune.kernels import liked_multiples
from onnxprune.steps.quantize.step import Quantize
from tests.conftest import Build

# Every ratio and every multiple; all of their pairs with `-m slow`.
SPREAD = {(0.25, 2), (0.5, 4), (0.8, 8), (0.25, 16)}


def rounded(path: Path, lost: dict[str, int], multiple: int) -> dict[str, int]:
    return round_up(inspect(path).groups, lost, dict.fromkeys(lost, Multiple(multiple)))


@pytest.fixture
def plain(build: Build) -> Path:
    """Two groups of 20 and 6 units."""
    return build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 20] w1, float[20, 6] w2, float[6, 3] w3>
        { h = MatMul(x, w1)  r = Relu(h)  k = MatMul(r, w2)  s = Relu(k)  y = MatMul(s, w3) }
    """)


@pytest.mark.parametrize(
    ("lost", "multiple", "after"),
    [
        (7, 8, 4),  # 13 left -> 16
        (4, 8, 4),  # 16 left: as it is
        (12, 8, 12),  # 8 left
        (1, 8, 0),  # 19 left -> 24, more than there are: whole
        (0, 8, 0),
        (19, 8, 12),
        (7, 1, 7),
        (7, 100, 0),
    ],
)
def test_what_stays_is_rounded_up(plain: Path, lost: int, multiple: int, after: int) -> None:
    assert rounded(plain, {"w1": lost, "w2": 0}, multiple) == {"w1": after, "w2": 0}


@pytest.fixture
def heads(build: Build) -> Path:
    """An axis of 4 heads of 6 entries."""
    return build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 24] w, float[24, 3] v, int64[3] apart = {-1, 4, 6}, int64[2] together = {-1, 24}>
        { h = MatMul(x, w)  t = Reshape(h, apart)  r = Relu(t)  f = Reshape(r, together)  y = MatMul(f, v) }
    """)


@pytest.mark.parametrize(
    ("lost", "multiple", "left"),
    [
        ((1, 2), 8, (4, 4)),  # 3 heads of 4 entries are 12: 4 heads make 16
        ((2, 2), 8, (2, 4)),  # 2 * 4 = 8 already
        ((2, 3), 4, (4, 3)),  # first heads, with 3 entries each: a multiple of 4; then 4 * 3 = 12
        ((1, 0), 8, (4, 6)),
    ],
)
def test_products_count_as_a_whole(heads: Path, lost: tuple[int, int], multiple: int, left: tuple[int, int]) -> None:
    analysis = inspect(heads)
    outer, inner = analysis.groups
    assert (outer.units, inner.units) == (4, 6)
    multiples = dict.fromkeys([outer.id, inner.id], Multiple(multiple))
    after = round_up(analysis.groups, {outer.id: lost[0], inner.id: lost[1]}, multiples)
    assert (outer.units - after[outer.id], inner.units - after[inner.id]) == left


@pytest.mark.parametrize(
    ("ratio", "multiple"),
    [
        pytest.param(ratio, multiple, marks=[] if (ratio, multiple) in SPREAD else [pytest.mark.slow])
        for ratio in (0.25, 0.5, 0.8)
        for multiple in (2, 4, 8, 16)
    ],
)
@pytest.mark.parametrize("name", ["resnet", "transformer", "lstm"])
def test_axes_of_a_compressed_model_are_multiples_or_whole(
    digits: dict[str, Path], name: str, ratio: float, multiple: int
) -> None:
    """Every weight axis that lost something has a size that is a multiple, where its groups could reach one."""
    analysis = inspect(digits[name])
    plan = compress(digits[name], ratio=ratio, round_to=multiple, recover="none").plan
    kept = {atom: int(mask.sum()) for atom, mask in plan.keep(analysis).items()}
    for group in analysis.groups:
        if kept.get(group.atom, group.units) == group.units:
            continue
        for place in group.occurrences:
            assert kept_size(place.dim, kept) % multiple == 0, (group.id, place.tensor, place.axis)


def test_rounding_never_takes_more(digits: dict[str, Path]) -> None:
    for path in digits.values():
        exact = {each.group: len(each.remove) for each in compress(path, ratio=0.6, recover="none").plan.removals}
        for removal in compress(path, ratio=0.6, round_to=8, recover="none").plan.removals:
            assert len(removal.remove) <= exact[removal.group]


@pytest.mark.parametrize(
    ("size", "liked", "multiple"),
    [(64, 8, 8), (32, 8, 8), (31, 8, 4), (3, 8, 4), (2, 8, 1), (64, 16, 16), (63, 16, 8), (5, 16, 4)],
)
def test_small_axes_are_multiples_of_less(size: int, liked: int, multiple: int) -> None:
    assert Multiple(liked, at_most=True).of(size) == multiple
    assert Multiple(liked).of(size) == liked


def test_a_group_gets_back_as_many_as_keep_it_aligned(plain: Path) -> None:
    first, second = (groups := inspect(plain).groups)
    lost = {first.id: 12, second.id: 0}
    assert next_larger(first, groups, lost, None) == 11
    assert next_larger(first, groups, lost, Multiple(4)) == 8  # 8 left -> 12
    assert next_larger(first, groups, lost, Multiple(16)) == 4
    assert next_larger(first, groups, {**lost, first.id: 3}, Multiple(8)) == 0  # 17 left -> 24, which is whole


@pytest.mark.parametrize(
    "options", [{"ratio": 0.4}, {"target": "macs=0.6"}, {"target": "macs=0.6", "scope": "uniform"}]
)
def test_channels_are_aligned_where_nobody_says_how(digits: dict[str, Path], options: dict[str, Any]) -> None:
    """And what was asked for is held: the target as before, the ratio to half a block of channels."""
    path = digits["resnet"]
    aligned = compress(path, recover="none", criterion="l1", **options)
    plain = compress(path, recover="none", criterion="l1", round_to=1, **options)
    kept = [removal.units - len(removal.remove) for removal in aligned.plan.removals]
    assert kept
    assert all(count % 4 == 0 for count in kept)
    assert any((removal.units - len(removal.remove)) % 4 for removal in plain.plan.removals)
    assert any("--round-to 1" in note for note in aligned.report.notes)
    assert not any("--round-to 1" in note for note in plain.report.notes)
    if "ratio" in options:
        assert abs(aligned.plan.removed_units - plain.plan.removed_units) <= 4
    else:
        assert aligned.report.after.macs <= 0.6 * aligned.report.before.macs


def test_a_ratio_of_a_group_or_of_a_scope_is_not_aligned(digits: dict[str, Path]) -> None:
    path, options = digits["resnet"], {"recover": "none", "criterion": "l1"}
    one = inspect(path).groups[0]
    for asked in ({"ratios": {one.id: 0.35}}, {"scope": "uniform", "ratio": 0.35}):
        removed = {each.group: len(each.remove) for each in compress(path, **options, **asked).plan.removals}
        assert (one.units, removed[one.id]) == (16, 5)


def test_other_providers_and_integers_like_other_sizes(digits: dict[str, Path]) -> None:
    analysis = inspect(digits["transformer"])
    assert liked_multiples(analysis.groups, analysis.model, Context()) == {}
    elsewhere = SimpleNamespace(execution=("CUDAExecutionProvider",), following=(), beyond=())
    assert set(liked_multiples(analysis.groups, analysis.model, cast(Context, elsewhere)).values()) == {8}
    analysis = inspect(digits["resnet"])
    channels = {group.id for group in analysis.groups if group.kind == "channels"}
    assert liked_multiples(analysis.groups, analysis.model, Context()) == dict.fromkeys(channels, 8)
    soon = Context(following=(Quantize("int8"),))
    assert liked_multiples(analysis.groups, analysis.model, soon) == dict.fromkeys(channels, 16)
    later = Context(following=(Quantize("fp16-weights"),))
    assert liked_multiples(analysis.groups, analysis.model, later) == dict.fromkeys(channels, 8)
