"""Lines with a count are lines, for whoever does not look for the count."""

from __future__ import annotations

from onnxprune.support.progress import Counted, within


def test_step_is_its_text() -> None:
    step = Counted("layer 3 of 20", 2, 20)
    assert step == "layer 3 of 20"
    assert (step.done, step.total) == (2, 20)


def test_within_keeps_the_count() -> None:
    said = within("cpu", Counted("session 1", 0, 12))
    assert isinstance(said, Counted)
    assert (said, said.done, said.total) == ("cpu: session 1", 0, 12)
    assert within("cpu", "loading") == "cpu: loading"
    assert not isinstance(within("cpu", "loading"), Counted)
