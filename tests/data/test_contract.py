"""What every source of data promises, asserted for every one that is registered: a new file is under this test.

Its sample, seven samples for a model with a dynamic batch axis, is read
- whole, in batches of the size that is asked for (a source with batches of its own keeps those),
- as far as is asked for, and the same in every pass, byte for byte.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxprune.data.base import SOURCES, Data, load_data
from onnxprune.errors import DataError
from onnxprune.model.signature import Port
from tests.data.harness import assert_same_again, sizes


def opened(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **options: object) -> Data:
    """The sample of a source, or a skip where it needs a package that is not installed."""
    monkeypatch.chdir(folder)
    try:
        sample = SOURCES[name].sample(folder)
    except ImportError as error:
        pytest.skip(str(error))
    return load_data(sample.spec, sample.ports, **{**sample.options, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SOURCES)
def test_seven_samples_in_batches(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = opened(name, tmp_path, monkeypatch, batch=4)
    found = sizes(data)
    assert sum(found) == 7
    assert found == [4, 3] or SOURCES[name].batched
    assert_same_again(data)
    assert data.labelled == (next(data.batches()).labels is not None)


@pytest.mark.parametrize("name", SOURCES)
def test_the_first_samples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few, all_of_them = (opened(name, tmp_path, monkeypatch, batch=4, samples=count) for count in (4, 7))
    assert sizes(few) == [4] or SOURCES[name].batched
    assert sum(sizes(few)) == 4
    first, whole = next(few.batches()).feed, next(all_of_them.batches()).feed
    for key, array in first.items():
        assert np.array_equal(array, whole[key])


@pytest.mark.parametrize("name", [name for name in SOURCES if SOURCES[name].parts])
def test_parts_are_the_whole(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What several processes read, one sample at a time, is what one reads."""
    data = opened(name, tmp_path, monkeypatch, batch=1)
    assert data.part is not None
    whole = list(data.batches())
    for index in range(2):
        found = list(data.part(index, 2))
        assert len(found) == len(whole[index::2])
        for one, other in zip(found, whole[index::2], strict=True):
            assert all(np.array_equal(array, other.feed[key]) for key, array in one.feed.items())


@pytest.mark.parametrize("name", SOURCES)
def test_says_what_it_takes(name: str) -> None:
    """In the message that lists what `--data` takes."""
    assert 2 <= len(SOURCES[name].accepts.split()) <= 25
    with pytest.raises(DataError) as refused:
        load_data("no/such.thing", [Port("x", "tensor(float)", ("batch", 3))])
    assert SOURCES[name].accepts in str(refused.value)
