"""Lines with a count are lines, for whoever does not look for the count; parts add up to the whole run."""

from __future__ import annotations

import pytest

from onnxprune.support.progress import Counted, Overall, parts, within


def shares(told: list[str]) -> list[float]:
    assert all(isinstance(each, Overall) for each in told)
    return [each.share for each in told if isinstance(each, Overall)]


def test_step_is_its_text() -> None:
    step = Counted("layer 3 of 20", 2, 20)
    assert step == "layer 3 of 20"
    assert (step.done, step.total) == (2, 20)


def test_within_keeps_the_count_and_the_share() -> None:
    said = within("cpu", Counted("session 1", 0, 12))
    assert isinstance(said, Counted)
    assert (said, said.done, said.total) == ("cpu: session 1", 0, 12)
    shared = within("cpu", Overall("session 1", 0.25))
    assert isinstance(shared, Overall)
    assert (shared, shared.share) == ("cpu: session 1", 0.25)
    assert within("cpu", "loading") == "cpu: loading"
    assert not isinstance(within("cpu", "loading"), Counted | Overall)


def test_each_part_is_as_much_of_the_run_as_its_effort() -> None:
    told: list[str] = []
    first, second = parts(told.append, [1, 3])
    first("analysing")
    second("scoring")
    second(Counted("layer 11 of 20", 10, 20))
    assert told == ["analysing", "scoring", "layer 11 of 20"]
    assert shares(told) == pytest.approx([0, 0.25, 0.25 + 0.75 * 0.9 / 2])


def test_pieces_follow_each_other_and_the_share_never_falls() -> None:
    told: list[str] = []
    (part,) = parts(told.append, [5])
    for done in range(3):
        part(Counted("batch", done, 2))
    for done in range(2):
        part(Counted("layer", done, 2))
    part("removing")
    assert shares(told) == pytest.approx([0, 0.45, 0.9, 0.9, 0.945, 0.945])


def test_parts_of_parts() -> None:
    told: list[str] = []
    _, second = parts(told.append, [1, 1])
    inner = parts(second, [1, 1])
    inner[1]("here")
    second("after it")
    assert shares(told) == [0.75, 0.75]
