"""What `--only` and `--skip` speak of: kinds, and patterns on the names of groups, tensors and nodes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.select import KINDS, select_groups
from onnxprune.errors import UsageError
from onnxprune.pipeline.run import inspect
from tests.conftest import Build


@pytest.fixture
def analysis(build: Build) -> Analysis:
    """Channels, then neurons, then neurons."""
    return inspect(
        build("""
            net (float[batch, 3, 6, 6] x) => (float[batch, 4] y)
            <float[8, 3, 3, 3] conv_w, float[8, 7] head_w0, float[7, 5] head_w1, float[5, 4] out_w>
            {
                [stem_conv] c = Conv(x, conv_w)  g = GlobalAveragePool(c)  f = Flatten(g)
                [head_first] h = MatMul(f, head_w0)  r = Relu(h)
                [head_second] k = MatMul(r, head_w1)  s = Relu(k)
                y = MatMul(s, out_w)
            }
        """)
    )


CONV, FIRST, SECOND = "conv_w", "head_w0", "head_w1"


@pytest.mark.parametrize(
    ("only", "skip", "chosen"),
    [
        ([], [], [CONV, FIRST, SECOND]),
        (["channels"], [], [CONV]),
        (["neurons"], [], [FIRST, SECOND]),
        ([], ["neurons"], [CONV]),
        (["channels", "neurons"], [SECOND], [CONV, FIRST]),
        ([FIRST], [], [FIRST]),  # a group
        (["head_w0[1]"], [], [FIRST]),  # as older versions called it; its brackets are not a pattern
        (["conv_w"], [], [CONV]),
        (["out_w"], [], [SECOND]),  # a tensor that reads the group
        (["head_second"], [], [FIRST, SECOND]),  # a node: what it reads and what it makes
        (["stem_*"], [], [CONV]),
        (["head_[fs]*"], [], [CONV, FIRST, SECOND]),  # head_first reads the channels
        (["*head*"], ["*_w1*"], [FIRST]),  # names of groups, so the nodes are not asked
        (["hidden"], [], []),  # a kind that this model does not have
        ([], ["hidden"], [CONV, FIRST, SECOND]),
    ],
)
def test_selection(analysis: Analysis, only: Sequence[str], skip: Sequence[str], chosen: list[str]) -> None:
    assert [group.id for group in select_groups(analysis, only, skip)] == chosen


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("chanels", "nothing in this model matches 'chanels'; did you mean 'channels'?"),
        ("head_v0", "nothing in this model matches 'head_v0'; did you mean 'head_w0'?"),
        ("*decoder*", r"nothing in this model matches '\*decoder\*'"),
        ("HEAD*", r"nothing in this model matches 'HEAD\*'"),  # names are told apart by case
    ],
)
def test_entry_that_matches_nothing_is_refused(analysis: Analysis, entry: str, message: str) -> None:
    for request in (([entry], []), ([], [entry])):
        with pytest.raises(UsageError, match=message):
            select_groups(analysis, *request)


def test_every_kind_is_a_name_of_its_own() -> None:
    assert len(set(KINDS)) == len(KINDS)
