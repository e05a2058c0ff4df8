"""Statistics of activations: run a model over data in ONNX Runtime and accumulate what is asked of its inner values.

Memory does not grow with the number of samples. Only the values that are needed become outputs, as many in one run over
the data as fit into memory together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import Any, Protocol, TypeVar

import numpy.typing as npt

from onnxprune.analysis.groups import Analysis, Group
from onnxprune.analysis.layers import Layer, layers
from onnxprune.data.base import Batch, Data
from onnxprune.data.split import in_batches_of
from onnxprune.model.graph import with_outputs
from onnxprune.model.inner_values import handed_out, one_after_the_other, own_name
from onnxprune.model.signature import ports_of
from onnxprune.runtime.providers import CPU_ONLY
from onnxprune.runtime.session import Session
from onnxprune.statistics.sites import SitePlace, SiteRead, find_sites, samples_at_once
from onnxprune.support.memory import bytes_for
from onnxprune.support.progress import Counted, Progress

Array = npt.NDArray[Any]


class Accumulator(Protocol):
    """Takes one value, batch by batch. Sums belong in float64."""

    def update(self, value: Array, batch: Batch) -> None:
        """Take the value that a batch gives."""


A = TypeVar("A", bound=Accumulator)
T = TypeVar("T")


class Activations:
    """The inner values of an analysed model on calibration data, for criteria to take statistics of.

    Each kind of statistic is collected once, for all groups together, when it is first asked for.

    Args:
        analysis: the model.
        data: what to run it on.
        providers: execution providers of ONNX Runtime.
        progress: is called with what is being done.
        memory: bytes of values of one batch to hold at the same time, by default the share of the bound: larger batches
            are cut, and what is more even of one sample takes further runs over the data.
    """

    def __init__(
        self,
        analysis: Analysis,
        data: Data,
        *,
        providers: Sequence[str] = CPU_ONLY,
        progress: Progress = lambda _: None,
        memory: int | None = None,
    ) -> None:
        self.analysis = analysis
        self.data = data
        self._providers = providers
        self.progress = progress
        self._memory = memory or bytes_for("values")
        self._collected: dict[str, Any] = {}
        self._batches = 0
        self._sites = find_sites(analysis)
        self._places = list(self._sites)

    def places(self, group: Group) -> list[SitePlace]:
        """The activations whose entries belong to the units of a group: what sums over the units read."""
        return [place for place, reads in self._sites.items() if any(read.sums(group.atom) for read in reads)]

    def reads(self, group: Group) -> list[tuple[SitePlace, SiteRead]]:
        """The same places with the nodes that sum over the units there."""
        return [(place, read) for place, reads in self._sites.items() for read in reads if read.sums(group.atom)]

    def per_place(self, kind: str, make: Callable[[SitePlace], A]) -> dict[SitePlace, A]:
        """An accumulator for each place, filled; made in the first call that asks for this `kind`."""
        if kind not in self._collected:
            found = {place: make(place) for place in self._places}
            self._collect_all((place.value, accumulator) for place, accumulator in found.items())
            self._collected[kind] = found
        return self._collected[kind]  # type: ignore[no-any-return]

    def per_group(self, kind: str, make: Callable[[Group, SitePlace], A]) -> dict[tuple[str, SitePlace], A]:
        """For each group, by id, and each of its places an accumulator of the place's value; see `per_place`."""
        if kind not in self._collected:
            found = {
                (group.id, place): make(group, place) for group in self.analysis.groups for place in self.places(group)
            }
            self._collect_all((place.value, accumulator) for (_, place), accumulator in found.items())
            self._collected[kind] = found
        return self._collected[kind]  # type: ignore[no-any-return]

    def per_layer(self, kind: str, make: Callable[[Layer], A]) -> dict[str, tuple[Layer, A]]:
        """For each affine layer, by name, an accumulator of the value that it reads; see `per_place`."""
        if kind not in self._collected:
            found = {layer.name: (layer, make(layer)) for layer in layers(self.analysis)}
            self._collect_all((layer.x, accumulator) for layer, accumulator in found.values())
            self._collected[kind] = found
        return self._collected[kind]  # type: ignore[no-any-return]

    def once(self, kind: str, make: Callable[[], T]) -> T:
        """The result of `make`, made in the first call that asks for this `kind`; it calls `collect` itself."""
        if kind not in self._collected:
            self._collected[kind] = make()
        return self._collected[kind]  # type: ignore[no-any-return]

    def _collect_all(self, pairs: Iterable[tuple[str, Accumulator]]) -> None:
        watch: dict[str, list[Accumulator]] = {}
        for name, accumulator in pairs:
            watch.setdefault(name, []).append(accumulator)
        self.collect(watch)

    def collect(self, watch: Mapping[str, Sequence[Accumulator]]) -> None:
        """Run the model over the data, in as few passes as memory allows, and update the accumulators of each value."""
        passes = list(self._passes(watch))
        for number, names in enumerate(passes):
            count = 0
            for count, (batch, values) in enumerate(self.stream(names, self._at_once(names)), 1):
                self._tell(count, number, len(passes))
                for name in names:
                    for accumulator in watch[name] if values[name].size else ():  # of a branch that was not taken
                        accumulator.update(values[name], batch)
            self._batches = count

    def _tell(self, count: int, number: int, passes: int) -> None:
        """Say which batch of which pass it is; how many batches there are is known after the first pass."""
        said = f"observing activations, batch {count}" + (f" (pass {number + 1} of {passes})" if passes > 1 else "")
        batches = self._batches
        self.progress(Counted(said, number * batches + count - 1, passes * batches) if batches else said)

    def stream(self, names: Iterable[str], most: int | None = None) -> Iterator[tuple[Batch, dict[str, Array]]]:
        """Each batch with the named values, cut to `most` samples. Raises ModelError when the model cannot be run."""
        wanted = list(dict.fromkeys(names))
        with handed_out(self.analysis.model, wanted, self.analysis.shapes.dtypes) as inner:
            made = [value.name or "" for value in inner]
            with with_outputs(self.analysis.model, [*wanted, *made]) as model:
                session = Session(model, self._providers, optimized=True)
        for batch in self._cut(most):
            fed = {name: array for name, array in batch.feed.items() if name in wanted}
            made = [name for name in wanted if name not in fed]
            found = {**(session.run(batch.feed, made) if made else {}), **fed}
            yield batch, {name: one_after_the_other(name, found[name], self.analysis.model) for name in wanted}

    def _at_once(self, names: Iterable[str]) -> int | None:
        """So many samples that the named values of them fit into memory; None where batches cannot be cut."""
        if any(isinstance(port.batch_size, int) for port in ports_of(self.analysis.model)):
            return None
        return max(1, self._memory // max(1, sum(map(self._bytes, names))))

    def _cut(self, most: int | None) -> Iterator[Batch]:
        return (self.data if most is None else in_batches_of(self.data, most)).batches()

    def _bytes(self, name: str) -> int:
        """Of a value of one sample, at the sizes of the analysis."""
        return -(-4 * prod(self.analysis.shapes.shapes.get(own_name(name), ())) // samples_at_once(self.analysis))

    def _passes(self, names: Iterable[str]) -> Iterator[list[str]]:
        """The values in portions that fit into memory, in the order given."""
        portion: list[str] = []
        size = 0
        for name in names:
            more = self._bytes(name)
            if portion and size + more > self._memory:
                yield portion
                portion, size = [], 0
            portion.append(name)
            size += more
        if portion:
            yield portion
