"""Lines of text through a tokenizer.json: the ids, what goes with them, and how they are padded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxprune.errors import DataError
from onnxprune.model.signature import Port
from tests.data.harness import IDS, MASK, assert_same_again, load, sizes

tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed; it comes with the extra 'data'")

WORDS = {"[PAD]": 3, "[UNK]": 0, "a": 1, "b": 2, "c": 4}
TEXT = "a b c\n\n  \nb\nc c what\na\nb b b b b\n"
ALL = (
    IDS,
    Port("input_mask:0", "tensor(int32)", ("batch", None)),
    Port("token_type_ids", "tensor(int64)", ("batch", None)),
    Port("position_ids", "tensor(int64)", ("batch", None)),
)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(WORDS, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "lines.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path / "lines.txt"


def test_lines_are_samples_padded_to_the_longest_of_the_batch(text: Path, tokenizer: Path) -> None:
    data = load(text, *ALL, tokenizer=tokenizer, batch=3)
    first, second = data.batches()
    assert first.feed["input_ids"].tolist() == [[1, 2, 4], [2, 3, 3], [4, 4, 0]]
    assert first.feed["input_mask:0"].tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 1]]
    assert first.feed["input_mask:0"].dtype == np.int32
    assert not first.feed["token_type_ids"].any()
    assert first.feed["position_ids"].tolist() == [[0, 1, 2]] * 3
    assert second.feed["input_ids"].tolist() == [[1, 3, 3, 3, 3], [2] * 5]
    assert not data.labelled
    assert_same_again(data)


@pytest.mark.parametrize("how", ["static", "given"])
def test_a_fixed_length_pads_and_cuts(text: Path, tokenizer: Path, how: str) -> None:
    port = Port("tokens", "tensor(int64)", ("batch", 4 if how == "static" else "length"))
    (batch,) = load(text, port, tokenizer=tokenizer, sizes={} if how == "static" else {"length": 4}).batches()
    assert batch.feed["tokens"].tolist() == [[1, 2, 4, 3], [2, 3, 3, 3], [4, 4, 0, 3], [1, 3, 3, 3], [2] * 4]


def test_settings_of_the_tokenizer_are_kept(text: Path, tokenizer: Path) -> None:
    made = tokenizers.Tokenizer.from_file(str(tokenizer))
    made.enable_padding(pad_id=9, pad_token="end")
    made.enable_truncation(2)
    made.save(str(tokenizer))
    (batch,) = load(text, IDS, tokenizer=tokenizer.parent).batches()
    assert batch.feed["input_ids"].tolist() == [[1, 2], [2, 9], [4, 4], [1, 9], [2, 2]]


def test_any_file_is_text_beside_a_tokenizer(text: Path, tokenizer: Path) -> None:
    notes = text.rename(text.with_suffix(".md"))
    assert sizes(load(notes, IDS, tokenizer=tokenizer)) == [5]
    with pytest.raises(DataError, match="is not data that can be read"):
        load(notes, IDS)


def test_text_without_a_tokenizer(text: Path) -> None:
    with pytest.raises(DataError, match="needs --tokenizer"):
        load(text, IDS)


@pytest.mark.parametrize(
    ("content", "says"), [(None, "does not exist"), ("{}", r"is not a tokenizer\.json"), ("no", "is not a tokenizer")]
)
def test_something_else_as_a_tokenizer(text: Path, tmp_path: Path, content: str | None, says: str) -> None:
    path = tmp_path / "other.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=says) as caught:
        load(text, IDS, tokenizer=path)
    assert "\n" not in str(caught.value)


def test_inputs_that_text_does_not_give(text: Path, tokenizer: Path) -> None:
    images = Port("pixel_values", "tensor(float)", ("batch", 3, 8, 8))
    with pytest.raises(DataError, match="text gives nothing for input 'pixel_values'"):
        load(text, IDS, images, tokenizer=tokenizer)
    with pytest.raises(DataError, match=r"'vector' is float\[batch, 3\], but the data is int64"):
        load(text, Port("vector", "tensor(float)", ("batch", 3)), tokenizer=tokenizer)


@pytest.mark.parametrize(("content", "says"), [(b"", "no samples"), (b" \n\n", "no samples"), (b"a\xff\n", "UTF-8")])
def test_files_without_lines(text: Path, tokenizer: Path, content: bytes, says: str) -> None:
    text.write_bytes(content)
    with pytest.raises(DataError, match=says):
        load(text, IDS, MASK, tokenizer=tokenizer)


def test_lines_are_read_as_they_are_needed(text: Path, tokenizer: Path, monkeypatch: Any) -> None:
    text.write_text("a b c\n" * 100_000)
    passed = load(text, IDS, tokenizer=tokenizer, batch=10).batches()
    next(passed)
    text.write_text("")  # of the file, no more than a buffer has been read
    assert sum(len(batch.feed["input_ids"]) for batch in passed) < 10_000
