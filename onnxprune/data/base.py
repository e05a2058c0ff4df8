"""Calibration data: sources of samples, and how samples become batches that the model takes.

A source is a file in `sources/` with a function under `@source(...)`: it gets a Request and returns a function that
starts a pass over chunks of samples, of any length. Everything else is done here for all of them, and for data that is
given in memory (`given.py`): names, types and shapes are checked against the model's inputs, safe casts made, NaN
refused, chunks cut and joined to batches along the batch axis of each input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from onnxprune.data.batch import Array as Array
from onnxprune.data.batch import Batch as Batch
from onnxprune.data.batch import joined
from onnxprune.data.batch import length_of as length_of
from onnxprune.data.checks import checked
from onnxprune.data.pixels import AS_SUGGESTED, ImageOptions
from onnxprune.errors import DataError, UsageError
from onnxprune.model.signature import Port, Values
from onnxprune.support.registry import Registry


@dataclass(frozen=True)
class Data:
    """Batches that can be read any number of times: every `batches()` starts anew and gives the same.

    Fields:
        source: what was given, for reports.
        labelled: whether the batches have labels.
        start: starts a pass.
        part: given i and n, starts a pass over single samples, those with the numbers i, i + n, i + 2n and so on; None
            where reading a part takes as long as reading all. So several processes can share the decoding.
        states: outputs that go into inputs of the next call, by the names of those: the samples are a sequence.
    """

    source: str
    labelled: bool
    start: Callable[[], Iterator[Batch]]
    part: Callable[[int, int], Iterator[Batch]] | None = None
    states: Mapping[str, str] = field(default_factory=dict)

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
    """Facts of the model about its inputs beyond their types; used by synthetic data. See `synthetic.hints_of`.

    Fields:
        values: which whole numbers an integer input may hold: the rows of the embedding table that it indexes.
        images: the statistics of image inputs.
    """

    values: Values = field(default_factory=dict)
    images: Mapping[str, ImageStatistics] = field(default_factory=dict)


NO_HINTS = Hints()


@dataclass(frozen=True)
class SampleRequest:
    """The request to a source: `ports` with all known sizes filled in, `batch` as large as batches will be.

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

    @property
    def fixed(self) -> set[int]:
        """The sizes of static batch axes; a model takes batches of one size where there is one."""
        return {port.batch_size for port in self.ports if isinstance(port.batch_size, int)}

    def port_of(self, kind: str) -> Port:
        """The one input of the model. Raises DataError where there are more, since `kind` can fill only one."""
        if len(self.ports) != 1:
            names = ", ".join(f"'{port.name}'" for port in self.ports)
            raise DataError(f"{self.spec}: {kind} can feed one input only, but the model has {names}; use an .npz file")
        return self.ports[0]


Start = Callable[[], Iterator[Batch]]


@dataclass(frozen=True)
class SourceSample:
    """Seven samples for the contract tests.

    Fields:
        spec: what `--data` would be.
        ports: of a model that takes them, its batch axis dynamic.
        options: of `load_data`.
    """

    spec: str
    ports: tuple[Port, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """A kind of data.

    Fields:
        accepts: what it is, for the message that lists all of them.
        recognizes: whether a request is for this kind; sources are asked in the order of their names.
        open: a function that starts a pass over chunks. Raises DataError for what can be known to be wrong.
        sample: writes seven samples into a folder, which is the current one.
        options: which of `labels`, `images` and `tokenizer` mean something for it.
        batched: chunks are taken as the batches that they are, instead of being joined and cut.
        parts: it can read a part of its samples in a part of the time, and gives chunks of one sample.
    """

    accepts: str
    recognizes: Callable[[SampleRequest], bool]
    open: Callable[[SampleRequest], Start]
    sample: Callable[[Path], SourceSample]
    options: tuple[str, ...]
    batched: bool
    parts: bool = False

    @property
    def summary(self) -> str:
        """The description of it for people."""
        return self.accepts


SOURCES: Registry[str, Source] = Registry("data source", "onnxprune.data.sources", "onnxprune.calibration")


def source(
    name: str,
    accepts: str,
    recognizes: Callable[[SampleRequest], bool],
    *,
    sample: Callable[[Path], SourceSample],
    options: tuple[str, ...] = (),
    batched: bool = False,
    parts: bool = False,
) -> Callable[[Callable[[SampleRequest], Start]], Callable[[SampleRequest], Start]]:
    """Decorator: register a function that opens data; see Source for the arguments."""

    def register(opens: Callable[[SampleRequest], Start]) -> Callable[[SampleRequest], Start]:
        SOURCES.register(name)(Source(accepts, recognizes, opens, sample, options, batched, parts))
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
        spec: a path, `module:function` or `synthetic`; see the files in `sources/`.
        ports: the model's inputs, as `signature.ports_of` gives them.
        labels: the array, column or file with labels.
        samples: at most this many, the first ones; all by default.
        batch: samples in a batch; where the batch axis of an input is static, its size is taken instead, and what is
            left at the end and does not fill a batch is left out.
        seed: of everything random.
        sizes: sizes of symbolic axes, by name or `input[axis]`.
        images: what is done to images.
        tokenizer: a `tokenizer.json` for text.
        hints: what synthetic data may know of the model.

    Raises DataError for data that is missing, empty, damaged or does not fit, UsageError for impossible options.
    """
    request = request_for(spec, ports, labels, samples, batch, seed, sizes, images, tokenizer, hints)
    found = _source_of(request)
    _check_options(request, found)
    data = open_passes(request, passes(request, found.open(request), whole=found.batched))
    return replace(data, part=_part(request, found))


def request_for(
    spec: str,
    ports: Sequence[Port],
    labels: str | None,
    samples: int | None,
    batch: int,
    seed: int,
    sizes: Mapping[str, int],
    images: ImageOptions = AS_SUGGESTED,
    tokenizer: Path | None = None,
    hints: Hints = NO_HINTS,
) -> SampleRequest:
    """The request to a source; see `load_data`. Raises DataError, UsageError as that does."""
    for name, number in (("samples", samples), ("batch", batch)):
        if number is not None and number < 1:
            raise UsageError(f"--{name} must be at least 1, not {number}")
    bound = tuple(port.bound(sizes) for port in ports)
    if not bound:
        raise DataError(f"{spec}: the model has no inputs, so no data can be fed to it")
    request = SampleRequest(spec, bound, labels, samples, batch, seed, images, tokenizer, hints)
    return replace(request, batch=max(request.fixed, default=batch))


def open_passes(request: SampleRequest, start: Start) -> Data:
    """Data from what starts a pass over its batches; the first one is looked at."""
    return Data(request.spec, next(start()).labels is not None, start)


def passes(request: SampleRequest, start: Start, *, whole: bool) -> Start:
    """Make a start of passes over batches from one of passes over chunks.

    Args:
        request: what was asked for.
        start: starts a pass over the chunks.
        whole: the chunks are the batches, as long as the model takes batches of any size.

    Raises DataError for inputs that cannot be cut alike; a pass raises it for chunks that do not fit.
    """
    fixed = request.fixed
    regroup = len(fixed) == 1 or not whole
    if len(fixed) > 1 and regroup:
        shown = ", ".join(f"axis {port.batch_axis} of '{port.name}' {port}" for port in request.ports)
        raise DataError(
            f"{request.spec} cannot be cut to samples: the axes of the inputs that enumerate them have different sizes "
            f"({shown}); feed complete batches from module:function"
        )

    def batches() -> Iterator[Batch]:
        chunks = (checked(chunk, request.ports, request.spec, whole=not regroup) for chunk in start())
        return _batches(chunks, request, exact=bool(fixed), regroup=regroup)

    return batches


def _part(request: SampleRequest, found: Source) -> Callable[[int, int], Iterator[Batch]] | None:
    """Passes over parts of the samples, one by one; None where there is nothing to gain from them."""
    if not found.parts or request.samples is not None or request.fixed:
        return None

    def start(index: int, count: int) -> Iterator[Batch]:
        wanted = replace(request, part=(index, count))
        chunks = found.open(wanted)()
        return (checked(chunk, request.ports, request.spec, whole=False) for chunk in chunks)

    return start


def _source_of(request: SampleRequest) -> Source:
    """The kind of data that was asked for. Raises DataError where there is none."""
    sources = [SOURCES[name] for name in SOURCES.names()]
    for candidate in sources:
        if candidate.recognizes(request):
            return candidate
    accepted = "; ".join(candidate.accepts for candidate in sources)
    what = "is not data that can be read" if request.path.exists() else "does not exist"
    raise DataError(f"{request.spec} {what}; --data takes {accepted}")


def _check_options(request: SampleRequest, found: Source) -> None:
    """Raises UsageError for an option that means nothing for the kind of data."""
    given = {
        "labels": request.labels is not None,
        "images": request.images != AS_SUGGESTED,
        "tokenizer": request.tokenizer is not None,
    }
    for option in (name for name, is_given in given.items() if is_given and name not in found.options):
        what = "an option for images" if option == "images" else f"--{option}"
        raise UsageError(f"{request.spec} is taken as {found.accepts}, for which {what} means nothing; leave it out")


def _batches(chunks: Iterator[Batch], request: SampleRequest, *, exact: bool, regroup: bool) -> Iterator[Batch]:
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
            if cuttable and chunk.cuttable and taken < most:
                yield chunk.take(slice(most - taken))
            return
        taken += length
        yield chunk
        if taken == most:
            return


def _regrouped(chunks: Iterator[Batch], size: int, exact: bool, spec: str) -> Iterator[Batch]:
    """Batches of `size` samples, and of what is left unless the size has to be `exact`."""
    waiting: Batch | None = None
    for chunk in chunks:
        if not chunk.lengths:  # all that is fed at a time is one sample
            yield chunk
            continue
        waiting = chunk if waiting is None else joined([waiting, chunk], spec)
        length, start = length_of(waiting), 0
        while length - start >= size:
            yield waiting.take(slice(start, start + size))
            start += size
        waiting = waiting.take(slice(start, length)) if start < length else None
    if waiting is not None and not exact:
        yield waiting
