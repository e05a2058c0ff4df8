"""`--round-to`: axis sizes come out as multiples of a number where they can."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxprune.dims import kept_size
from onnxprune.pipeline.run import compress, inspect
from onnxprune.steps.prune.allocation.rounding import round_up
from tests.conftest import Build


def rounded(path: Path, lost: dict[str, int], multiple: int) -> dict[str, int]:
    return round_up(inspect(path).groups, lost, multiple)


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
    after = round_up(analysis.groups, {outer.id: lost[0], inner.id: lost[1]}, multiple)
    assert (outer.units - after[outer.id], inner.units - after[inner.id]) == left


@pytest.mark.parametrize("multiple", [2, 4, 8, 16])
@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.8])
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
        exact = {
            removal.group: len(removal.remove) for removal in compress(path, ratio=0.6, recover="none").plan.removals
        }
        for removal in compress(path, ratio=0.6, round_to=8, recover="none").plan.removals:
            assert len(removal.remove) <= exact[removal.group]
