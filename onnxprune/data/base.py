"""Calibration data: sources of samples, and how samples become batches that the model takes.

A source is a file beside this one with a function under `@source(...)`: it gets a Request and returns a function that
starts a pass over chunks of samples, of any length. Everything else is done here for all of them: names, types and
shapes are checked against the model's inputs, safe casts made, NaN refused, chunks cut and joined to batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.data.pixels import AS_SUGGESTED, ImageOptions
from onnxprune.errors import DataError, UsageError
from onnxprune.model.signature import Feed, Port
from onnxprune.support.messages import did_you_mean
from onnxprune.support.registry import Registry

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Batch:
    """Samples: arrays by input name and, where the data has them, labels; axis 0 of each enumerates the samples.

    An input of rank 0 is the same for all samples and has no such axis.
    """

    feed: Feed
    labels: Array | None = None


@dataclass(frozen=True)
class Data:
    """Batches that can be gone through any number of times: every `batches()` starts anew and gives the same.

    Fields:
        source: what was given, for reports.
        labelled: whether the batches have labels.
        start: starts a pass.
        part: given i and n, starts a pass over single samples, those with the numbers i, i + n, i + 2n and so on; None
            where reading a part takes as long as reading all. So several processes can share the decoding.
    """

    source: str
    labelled: bool
    start: Callable[[], Iterator[Batch]]
    part: Callable[[int, int], Iterator[Batch]] | None = None

    def batches(self) -> Iterator[Batch]:
        """A pass over the data from its beginning. Raises DataError where the data does not fit the model."""
        return self.start()


@dataclass(frozen=True)
class ImageStatistics:
    """Mean [C] and covariance [C, C] of the channels; amplitude falls with the frequency f as f ** -slope."""

    mean: Array
    covariance: Array
    slope: float


@dataclass(frozen=True)
class Hints:
    """What the model knows about its inputs beyond their types; used by synthetic data. See `synthetic.hints_of`.

    Fields:
        limits: how many values an integer input may take, from 0: the rows of the embedding table that it indexes.
        images: the statistics of image inputs.
    """

    limits: Mapping[str, int] = field(default_factory=dict)
    images: Mapping[str, ImageStatistics] = field(default_factory=dict)


NO_HINTS = Hints()


@dataclass(frozen=True)
class Request:
    """What a source is asked for: `ports` with all known sizes filled in, `batch` as large as batches will be.

    A source with `parts` heeds `part`, i and n: only the samples with the numbers i, i + n and so on are wanted.
    """

    spec: str
    ports: tuple[Port, ...]
    labels: str | None
    samples: int | None
    batch: int
    seed: int
    images: ImageOptions
    tokenizer: Path | None
    hints: Hints
    part: tuple[int, int] = (0, 1)

    @property
    def path(self) -> Path:
        """The spec as a path."""
        return Path(self.spec)

    def port_of(self, kind: str) -> Port:
        """The one input of the model. Raises DataError where there are more, since `kind` can fill only one."""
        if len(self.ports) != 1:
            names = ", ".join(f"'{port.name}'" for port in self.ports)
            raise DataError(f"{self.spec}: {kind} can feed one input only, but the model has {names}; use an .npz file")
        return self.ports[0]


Start = Callable[[], Iterator[Batch]]


@dataclass(frozen=True)
class Source:
    """A kind of data.

    Fields:
        accepts: what it is, for the message that lists all of them.
        recognizes: whether a request is for this kind; sources are asked in the order of their names.
        open: a function that starts a pass over chunks. Raises DataError for what can be known to be wrong.
        options: which of `labels`, `images` and `tokenizer` mean something for it.
        batched: chunks are taken as the batches that they are, instead of being joined and cut.
        parts: it can read a part of its samples in a part of the time, and gives chunks of one sample.
    """

    accepts: str
    recognizes: Callable[[Request], bool]
    open: Callable[[Request], Start]
    options: tuple[str, ...]
    batched: bool
    parts: bool = False


SOURCES: Registry[Source] = Registry("data source", "onnxprune.data.sources", "onnxprune.calibration")


def source(
    name: str,
    accepts: str,
    recognizes: Callable[[Request], bool],
    *,
    options: tuple[str, ...] = (),
    batched: bool = False,
    parts: bool = False,
) -> Callable[[Callable[[Request], Start]], Callable[[Request], Start]]:
    """Decorator: register a function that opens data; see Source for the arguments."""

    def register(opens: Callable[[Request], Start]) -> Callable[[Request], Start]:
        SOURCES.register(name)(Source(accepts, recognizes, opens, options, batched, parts))
        return opens

    return register


def load_data(
    spec: str,
    ports: Sequence[Port],
    *,
    labels: str | None = None,
    samples: int | None = None,
    batch: int = 32,
    seed: int = 0,
    sizes: Mapping[str, int] = {},
    images: ImageOptions = AS_SUGGESTED,
    tokenizer: Path | None = None,
    hints: Hints = NO_HINTS,
) -> Data:
    """Open calibration data and check its first batch.

    Memory does not grow with the number of samples: every pass reads the data again from where it is.

    Args:
        spec: a path, `module:function` or `synthetic`; see the files beside this one.
        ports: the model's inputs, as `signature.ports_of` gives them.
        labels: the array, column or file with labels.
        samples: at most this many, the first ones; all by default.
        batch: samples in a batch; where the first axis of an input is static, its size is taken instead, and what is
            left at the end and does not fill a batch is left out.
        seed: of everything random.
        sizes: sizes of symbolic axes, by name or `input[axis]`.
        images: what is done to images.
        tokenizer: a `tokenizer.json` for text.
        hints: what synthetic data may know of the model.

    Raises DataError for data that is missing, empty, damaged or does not fit, UsageError for impossible options.
    """
    for name, number in (("samples", samples), ("batch", batch)):
        if number is not None and number < 1:
            raise UsageError(f"--{name} must be at least 1, not {number}")
    bound = tuple(port.bound(sizes) for port in ports)
    if not bound:
        raise DataError(f"{spec}: the model has no inputs, so no data can be fed to it")
    fixed = {size for port in bound for size in port.shape[:1] if isinstance(size, int)}
    request = Request(spec, bound, labels, samples, max(fixed, default=batch), seed, images, tokenizer, hints)
    found = _source_of(request)
    _check_options(request, found)
    if len(fixed) > 1 and not found.batched:
        shown = ", ".join(f"'{port.name}' {port}" for port in bound)
        raise DataError(f"{spec}: the first axes of the inputs differ ({shown}); feed them with module:function")
    chunks = _Checked(request, found.open(request), found.batched)
    data = Data(spec, False, lambda: _batches(chunks(), request, exact=bool(fixed), regroup=not found.batched))
    data = replace(data, labelled=next(data.batches()).labels is not None)
    return replace(data, part=_part(request, found)) if found.parts and samples is None and not fixed else data


def _part(request: Request, found: Source) -> Callable[[int, int], Iterator[Batch]]:
    """Passes over parts of the samples, one by one."""

    def start(index: int, count: int) -> Iterator[Batch]:
        wanted = replace(request, part=(index, count))
        return _Checked(wanted, found.open(wanted), False)()

    return start


def _source_of(request: Request) -> Source:
    """The kind of data that was asked for. Raises DataError where there is none."""
    sources = [SOURCES[name] for name in SOURCES.names()]
    for candidate in sources:
        if candidate.recognizes(request):
            return candidate
    accepted = "; ".join(candidate.accepts for candidate in sources)
    what = "is not data that can be read" if request.path.exists() else "does not exist"
    raise DataError(f"{request.spec} {what}; --data takes {accepted}")


def _check_options(request: Request, found: Source) -> None:
    """Raises UsageError for an option that means nothing for the kind of data."""
    given = {
        "labels": request.labels is not None,
        "images": request.images != AS_SUGGESTED,
        "tokenizer": request.tokenizer is not None,
    }
    for option in (name for name, is_given in given.items() if is_given and name not in found.options):
        what = "an option for images" if option == "images" else f"--{option}"
        raise UsageError(f"{request.spec} is taken as {found.accepts}, for which {what} means nothing; leave it out")


@dataclass(frozen=True)
class _Checked:
    """Chunks of a source with what the model does not need dropped, cast, and checked."""

    request: Request
    start: Start
    batched: bool

    def __call__(self) -> Iterator[Batch]:
        for chunk in self.start():
            feed = {port.name: self._array(port, chunk.feed) for port in self.request.ports}
            checked = Batch(feed, chunk.labels)
            self._check_samples(checked)
            yield checked

    def _array(self, port: Port, feed: Feed) -> Array:
        spec = self.request.spec
        if port.name not in feed:
            raise DataError(f"{spec} has nothing for input '{port.name}' ({port}){did_you_mean(port.name, feed)}")
        array = np.asarray(feed[port.name])
        _check_shape(array, port, spec, exact=self.batched)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            wrong = array.size - int(np.count_nonzero(np.isfinite(array)))
            raise DataError(f"{spec}: {wrong} of {array.size} values for input '{port.name}' are NaN or infinite")
        return _cast(array, port, spec)

    def _check_samples(self, batch: Batch) -> None:
        spec, labels = self.request.spec, batch.labels
        if labels is not None and labels.dtype.kind not in "fiub":
            raise DataError(f"{spec}: labels must be numbers, but they are {labels.dtype.name}")
        lengths = {name: len(array) for name, array in _columns(batch).items()}
        # What a function yields may have inputs with another first axis; where it has not, labels have to agree too.
        alike = len({length for name, length in lengths.items() if name in batch.feed}) == 1
        if len(set(lengths.values())) > 1 and (alike or not self.batched):
            listed = ", ".join(f"{length} for '{name}'" for name, length in lengths.items())
            raise DataError(f"{spec} has different numbers of samples: {listed}")


def _check_shape(array: Array, port: Port, spec: str, *, exact: bool) -> None:
    """`exact`: the first axis has to fit too, else batches are still to be cut along it."""
    expected = port.shape
    if not expected:
        return
    if not exact:
        expected = (None, *expected[1:])
    fits = array.ndim == len(expected) and all(
        size == due or not isinstance(due, int) for size, due in zip(array.shape, expected, strict=True)
    )
    if not fits:
        found = "x".join(map(str, array.shape)) or "a single number"
        raise DataError(f"{spec}: input '{port.name}' is {port}, but the data is {found}")


def _cast(array: Array, port: Port, spec: str) -> Array:
    """To the input's type: between floats as long as nothing overflows, between integers as long as nothing is lost."""
    dtype = port.dtype
    if array.dtype == dtype:
        return array
    if dtype.kind == "U" and array.dtype.kind in "UO":
        return array.astype(object)
    if array.dtype.kind not in ("f" if dtype.kind == "f" else "iub" if dtype.kind in "iub" else ""):
        raise DataError(
            f"{spec}: input '{port.name}' is {port}, but the data is {array.dtype.name}; convert it and scale it as in "
            "the model's training"
        )
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    lossless = np.isfinite(cast).all() if dtype.kind == "f" else (cast == array).all()
    if not lossless:
        low, high = array.min(), array.max()
        raise DataError(f"{spec}: input '{port.name}' is {port}, which cannot hold the data's values {low} to {high}")
    return cast


def _batches(chunks: Iterator[Batch], request: Request, *, exact: bool, regroup: bool) -> Iterator[Batch]:
    """The batches of one pass. `exact`: no other size will do. Raises DataError where there are none."""
    chunks = _capped(chunks, request.samples, cuttable=regroup or not exact)
    found = False
    for batch in _regrouped(chunks, request.batch, exact, request.spec) if regroup else chunks:
        found = True
        yield batch
    if not found:
        raise DataError(
            f"{request.spec} has fewer samples than the {request.batch} that the model takes at a time"
            if exact and request.batch > 1
            else f"{request.spec} has no samples in it"
        )


def _capped(chunks: Iterator[Batch], most: int | None, *, cuttable: bool) -> Iterator[Batch]:
    """The first `most` samples; a chunk that cannot be cut and goes beyond them is left out."""
    taken = 0
    for chunk in chunks:
        length = length_of(chunk)
        if most is not None and taken + length > most:
            same = {len(array) for array in _columns(chunk).values()} == {length}
            if cuttable and same and taken < most:
                yield _cut(chunk, 0, most - taken)
            return
        taken += length
        yield chunk
        if taken == most:
            return


def _regrouped(chunks: Iterator[Batch], size: int, exact: bool, spec: str) -> Iterator[Batch]:
    waiting: Batch | None = None
    for chunk in chunks:
        waiting = chunk if waiting is None else _joined(waiting, chunk, spec)
        length, start = length_of(waiting), 0
        while length - start >= size:
            yield _cut(waiting, start, start + size)
            start += size
        waiting = _cut(waiting, start, length) if start < length else None
    if waiting is not None and not exact:
        yield waiting


def _columns(batch: Batch) -> Feed:
    """The arrays whose first axis enumerates samples, labels last."""
    labels = {} if batch.labels is None else {"labels": batch.labels}
    return {name: array for name, array in (*batch.feed.items(), *labels.items()) if array.ndim}


def length_of(batch: Batch) -> int:
    """How many samples there are: by the first input that is an array of them, 1 where there is none."""
    return next((len(array) for array in _columns(batch).values()), 1)


def _cut(batch: Batch, start: int, end: int) -> Batch:
    feed = {name: array[start:end] if array.ndim else array for name, array in batch.feed.items()}
    return Batch(feed, None if batch.labels is None else batch.labels[start:end])


def _joined(first: Batch, second: Batch, spec: str) -> Batch:
    """Raises DataError for samples of different shapes."""
    feed = {}
    for name, array in first.feed.items():
        other = second.feed[name]
        if array.shape[1:] != other.shape[1:]:
            found = " and ".join("x".join(map(str, shape)) for shape in (array.shape[1:], other.shape[1:]))
            raise DataError(f"{spec}: samples for '{name}' are {found}; bring them to one size, or use --batch 1")
        feed[name] = np.concatenate([array, other]) if array.ndim else array
    labels = None
    if first.labels is not None and second.labels is not None:
        labels = np.concatenate([first.labels, second.labels])
    return Batch(feed, labels)
