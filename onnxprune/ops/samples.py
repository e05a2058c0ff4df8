"""Samples of operators, data beside the rule: a small node of unequal sizes.

A sample is a function that draws the inputs and attributes of one node:

    @sample("Gemm", prunable="a[1] b[0] b[1] c[0] y[1]", since=11)
    def plain(d: SampleDraw) -> Case:
        m, k, n = d.sizes(3)
        return case(a=d.normal(m, k), b=d.normal(k, n), c=d.normal(n))

Arrays (and None, for an optional input left empty) are the inputs in order, everything else is an attribute. A rule
that comes as a file of its own has at least one beside it; further forms of the operators in this package are sampled
in tests/ops/. The rule oracle, the shape rules and the torch executor are tried on every sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.ops.base import Array, Key, keys

NEWEST = 24  # the newest opset that every operator of the installed ONNX Runtime is tried at
OLDEST = 7  # the oldest that ONNX Runtime promises to run
FAR = 2**31  # past the end of any axis, as exporters write "to the end"


class SampleDraw:
    """Sizes and contents of one example.

    Args:
        primes: sizes to hand out, all different.
        seed: of the contents.
    """

    def __init__(self, primes: Sequence[int], seed: int) -> None:
        self._primes = list(primes)
        self.rng = np.random.default_rng(seed)

    def sizes(self, count: int) -> list[int]:
        """Different primes."""
        assert count <= len(self._primes), "the sample asks for more sizes than there are primes"
        taken, self._primes = self._primes[:count], self._primes[count:]
        return taken

    def normal(self, *shape: int) -> Array:
        """Normal numbers, float32."""
        return np.asarray(self.rng.standard_normal(shape), np.float32)

    def positive(self, *shape: int) -> Array:
        """Between 1.5 and 2.5."""
        return np.asarray(self.rng.random(shape) + 1.5, np.float32)

    def unit(self, *shape: int) -> Array:
        """Between -0.9 and 0.9."""
        return np.asarray(self.rng.random(shape) * 1.8 - 0.9, np.float32)

    def integers(self, high: int, *shape: int, low: int = 0) -> Array:
        """From `low` up to below `high`, int64."""
        return np.asarray(self.rng.integers(low, high, shape), np.int64)

    def uint8(self, *shape: int) -> Array:
        """All bytes."""
        return self.integers(256, *shape).astype(np.uint8)

    def int8(self, *shape: int) -> Array:
        """From -128 to 127."""
        return self.integers(128, *shape, low=-128).astype(np.int8)

    def int7(self, *shape: int) -> Array:
        """From -64 to 63, as int8: weights to multiply with bytes.

        Where a machine has no VNNI, ONNX Runtime adds pairs of products in 16 bits; all of int8 would overflow there.
        """
        return self.integers(64, *shape, low=-64).astype(np.int8)

    def bools(self, *shape: int) -> Array:
        """True or False alike."""
        return np.asarray(self.rng.random(shape) < 0.5)

    def __repr__(self) -> str:
        return f"SampleDraw(primes={self._primes})"


def number(value: float, dtype: npt.DTypeLike = np.float32) -> Array:
    """A scalar."""
    return np.array(value, dtype=dtype)


def ints(*values: int) -> Array:
    """A vector of int64, as shapes, pads and axes are given."""
    return np.array(values, dtype=np.int64)


Case = dict[str, Any]
Build = Callable[[SampleDraw], Case]


def case(**drawn: Any) -> Case:
    """The inputs (arrays, None) and attributes (anything else) of one node."""
    return drawn


@dataclass(frozen=True)
class Sample:
    """One form of an operator.

    Attributes:
        key: domain and operator.
        label: names the form in the test's id.
        build: draws inputs and attributes.
        module: the module that declares it.
        prunable: axes that the rule must leave something to remove in, like `w[0]`.
        fed: the inputs that are graph inputs, the others are constants; None: the first one.
        outputs: names of the outputs, "" for one left out.
        since: the oldest opset of this form.
        until: the newest one.
        reference: computes the outputs from the sliced inputs; used for units that statistics run over. `shapes_only`
            where that is beyond a few lines of numpy.
        always: compare with `reference` for every unit.
        runtime: "ort", or where ONNX Runtime has no kernel "onnx" for onnx's reference implementation, or "reference".
    """

    key: Key
    label: str
    build: Build
    module: str
    prunable: tuple[str, ...]
    fed: tuple[str, ...] | None
    outputs: tuple[str, ...]
    since: int
    until: int
    reference: Callable[..., Any] | None
    always: bool
    runtime: str


def shapes_only(*_: Any, **__: Any) -> None:
    """Represents a reference that would be too long to write: values are not compared."""


SAMPLES: dict[Key, list[Sample]] = {}


def declared(
    key: Key,
    build: Build,
    *,
    prunable: str = "",
    fed: str | None = None,
    outputs: str = "y",
    since: int = OLDEST,
    until: int = NEWEST,
    reference: Callable[..., Any] | None = None,
    always: bool = False,
    runtime: str = "ort",
) -> Sample:
    """A sample; lists are words in a string.

    Only the first input is a graph input unless `fed` says otherwise. In `outputs`, "-" is an output left out.
    """
    return Sample(
        key,
        build.__name__.strip("_"),
        build,
        build.__module__,
        tuple(prunable.split()),
        None if fed is None else tuple(fed.split()),
        tuple(output.strip("-") for output in outputs.split()),
        since,
        until,
        reference,
        always,
        runtime,
    )


def sample(*names: str, domain: str = "", **form: Any) -> Callable[[Build], Build]:
    """Decorator: the function draws a node of each of the operators `names`; see `declared` for the arguments."""

    def add(build: Build) -> Build:
        for key in keys(names, domain):
            SAMPLES.setdefault(key, []).append(declared(key, build, **form))
        return build

    return add
