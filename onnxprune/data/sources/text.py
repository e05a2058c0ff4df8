"""Text, a sample in each line, through the file of a tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.data.base import Array, Batch, SampleRequest, SourceSample, Start, source
from onnxprune.data.columns import from_rows
from onnxprune.errors import DataError, MissingExtraError
from onnxprune.model.signature import Port
from onnxprune.support.messages import one_line

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

_TEXT = {".txt", ".text"}
_OTHERS = {".npz", ".npy", ".parquet", ".arrow"}

# What exporters call the inputs of language models.
_NAMES = {
    "ids": {"input_ids", "ids", "tokens"},
    "mask": {"attention_mask", "input_mask", "mask"},
    "types": {"token_type_ids", "segment_ids"},
    "positions": {"position_ids"},
}


def _recognizes(request: SampleRequest) -> bool:
    suffix = request.path.suffix
    return (request.path.is_file() or suffix in _TEXT) and (
        suffix in _TEXT or (request.tokenizer is not None and suffix not in _OTHERS)
    )


def _sample(folder: Path) -> SourceSample:
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "a": 2, "b": 3}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(folder / "tokenizer.json"))
    (folder / "lines.txt").write_text("a\nb a\na b a\nb\na a\nb b\na\n", encoding="utf-8")
    port = Port("input_ids", "tensor(int64)", ("batch", "length"))
    return SourceSample("lines.txt", (port,), {"tokenizer": folder / "tokenizer.json"})


@source(
    "text",
    "a text file with a sample in each line, beside --tokenizer tokenizer.json",
    _recognizes,
    sample=_sample,
    options=("tokenizer",),
)
def open_text(request: SampleRequest) -> Start:
    """Lines that are not blank, as token ids [batch, length] with their mask, segment ids (0) and positions.

    The length is the model's where that is static, else that of the batch's longest line, cut where the tokenizer's
    own settings say; shorter lines are padded at their ends.
    """
    if not request.path.is_file():
        raise DataError(f"{request.spec} does not exist; check the path")
    if request.tokenizer is None:
        raise DataError(f"{request.spec} is text, which needs --tokenizer tokenizer.json, the file beside the model")
    roles = {port.name: _role(port, request) for port in request.ports}
    tokenizer = _tokenizer(request.tokenizer, _length(request))
    return lambda: _read(tokenizer, roles, request)


def _role(port: Port, request: SampleRequest) -> str:
    name = port.name.lower().partition(":")[0]
    for role, names in _NAMES.items():
        if name in names:
            return role
    if len(request.ports) == 1:
        return "ids"
    known = ", ".join(sorted(name for names in _NAMES.values() for name in names))
    raise DataError(
        f"{request.spec}: text gives nothing for input '{port.name}' ({port}), only for {known}; use module:function"
    )


def _length(request: SampleRequest) -> int | None:
    """The static sequence length of the model, if it has one."""
    sizes = [port.shape[1 - (port.batch_axis or 0)] for port in request.ports if len(port.shape) == 2]
    return next((size for size in sizes if isinstance(size, int)), None)


def _tokenizer(path: Path, length: int | None) -> Tokenizer:
    """Set to pad to the same length, `length` or the longest, and to cut at `length`."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MissingExtraError("tokenizers", "data") from None
    path = path / "tokenizer.json" if path.is_dir() else path
    if not path.is_file():
        raise DataError(f"{path} does not exist; --tokenizer takes a tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises nothing more special
        raise DataError(f"{path} is not a tokenizer.json: {one_line(error)}") from None
    names = ("[PAD]", "<pad>", "<|endoftext|>", "</s>")
    known = [(tokenizer.token_to_id(name), name) for name in names if tokenizer.token_to_id(name) is not None]
    pad, name = known[0] if known else (0, tokenizer.id_to_token(0))
    own = tokenizer.padding or {"pad_id": pad, "pad_token": name, "pad_type_id": 0}
    tokenizer.enable_padding(
        pad_id=own["pad_id"], pad_token=own["pad_token"], pad_type_id=own["pad_type_id"], length=length
    )
    if length is not None:
        tokenizer.enable_truncation(length)
    return tokenizer


def _read(tokenizer: Tokenizer, roles: dict[str, str], request: SampleRequest) -> Iterator[Batch]:
    try:
        with request.path.open(encoding="utf-8") as file:
            lines = (line.strip() for line in file)
            written = filter(None, lines)
            while chunk := list(islice(written, request.batch)):
                encodings = tokenizer.encode_batch(chunk)
                yield from_rows({name: _ints(encodings, role) for name, role in roles.items()}, request)
    except UnicodeDecodeError as error:
        raise DataError(f"{request.spec} is not text in UTF-8: {error.reason} at byte {error.start}") from None


def _ints(encodings: list[Encoding], role: str) -> Array:
    if role == "ids":
        return np.array([encoding.ids for encoding in encodings], np.int64)
    if role == "types":
        return np.array([encoding.type_ids for encoding in encodings], np.int64)
    mask = np.array([encoding.attention_mask for encoding in encodings], np.int64)
    return mask if role == "mask" else np.broadcast_to(np.arange(mask.shape[1]), mask.shape).copy()
