"""Which sizes to give the dynamic axes of a model, so that the rest of the tool only ever sees numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx_ir as ir

from onnxprune.model.batch_axes import is_name

# Unequal primes, so that two dynamic axes never meet by accident of equal size.
_PRIMES = ((7, 11, 13, 17, 19, 23, 29, 31), (5, 3, 37, 41, 43, 47, 53, 59))
_IMAGE_SIDES = ((224, 160, 96), (192, 256, 320))
_ODD_SIDES = (225, 161, 97)
_ODD_PRIMES = (67, 71, 73, 79, 83, 89, 97, 101)


def symbols_of(model: ir.Model) -> dict[str, tuple[int, int, bool]]:
    """Each dynamic axis of the graph inputs by its symbol: (axis, rank, is floating point)."""
    symbols: dict[str, tuple[int, int, bool]] = {}
    for value in model.graph.inputs:
        if value.name in model.graph.initializers or value.shape is None:
            continue
        floating = value.dtype is not None and value.dtype.is_floating_point()
        for axis, size in enumerate(value.shape):
            if not isinstance(size, int):
                symbols.setdefault(symbol_of(value, axis), (axis, len(value.shape), floating))
    return symbols


def symbol_of(value: ir.Value, axis: int) -> str:
    """The name of a dynamic axis of a graph input: axes that share one share their size."""
    assert value.shape is not None
    size = getattr(value.shape[axis], "value", None)
    return str(size) if is_name(size) else f"{value.name}[{axis}]"


def candidates(
    symbols: Mapping[str, tuple[int, int, bool]], sizes: Mapping[str, int] = {}
) -> Iterator[tuple[dict[str, int], dict[str, int]]]:
    """Pairs of bindings to try: primes; one batch size for all inputs; sizes with many divisors, for windows.

    The first of a pair has the `sizes` that somebody wants, and so has the second in the pairs that come last: a model
    may run at no others.
    """
    for first, second in _guesses(symbols):
        yield {**first, **_wanted(symbols, sizes)}, second
    if _wanted(symbols, sizes):
        for first, second in _guesses(symbols):
            yield {**first, **_wanted(symbols, sizes)}, {**second, **_wanted(symbols, sizes)}


def _wanted(symbols: Mapping[str, object], sizes: Mapping[str, int]) -> dict[str, int]:
    """Those that the analysis can work at: of an axis of one entry it could not tell what becomes of it."""
    return {symbol: size for symbol, size in sizes.items() if symbol in symbols and size > 1}


def _guesses(symbols: Mapping[str, tuple[int, int, bool]]) -> Iterator[tuple[dict[str, int], dict[str, int]]]:
    for divisible, one_batch in ((False, False), (False, True), (True, False), (True, True)):
        pair: tuple[dict[str, int], dict[str, int]] = ({}, {})
        for turn, bindings in enumerate(pair):
            for index, (symbol, (axis, rank, floating)) in enumerate(symbols.items()):
                prime = _PRIMES[turn][0 if one_batch and axis == 0 else index % len(_PRIMES[turn])]
                if _is_side(axis, rank, floating):
                    bindings[symbol] = _IMAGE_SIDES[turn][(axis + index) % 3]
                elif floating and axis == rank - 1 and axis >= 1:
                    bindings[symbol] = 400 * prime
                else:
                    bindings[symbol] = prime * 16 if divisible and axis else prime
        yield pair


def rounds_of_further(
    symbols: dict[str, tuple[int, int, bool]], usual: dict[str, int]
) -> Iterator[Iterator[dict[str, int]]]:
    """Bindings that show what only the `usual` sizes have in common, in rounds: the first that a model takes will do.

    One round of odd and larger sizes, one of sizes of 1: everything, all but the sides of images and the samples of
    a signal, the first axes alone.
    """
    sides = {symbol: _is_side(*about) for symbol, about in symbols.items()}
    signals = {symbol: floating and axis == rank - 1 >= 1 for symbol, (axis, rank, floating) in symbols.items()}
    odd = {
        symbol: _ODD_SIDES[(axis + index) % 3] if sides[symbol] else _ODD_PRIMES[index % len(_ODD_PRIMES)]
        for index, (symbol, (axis, _, _)) in enumerate(symbols.items())
    }
    long = {symbol: size * 41 if signals[symbol] and not sides[symbol] else size for symbol, size in odd.items()}
    small = {symbol: size if sides[symbol] else 3 + 2 * (index % 4) for index, (symbol, size) in enumerate(odd.items())}
    yield iter((long, odd, small))
    large = {symbol: size for symbol, size in usual.items() if sides[symbol] or signals[symbol]}
    first = {symbol: 1 for symbol, (axis, _, _) in symbols.items() if axis == 0}
    yield iter((dict.fromkeys(usual, 1), {**dict.fromkeys(usual, 1), **large}, {**usual, **first}))


def _is_side(axis: int, rank: int, floating: bool) -> bool:
    """Of an image."""
    return floating and rank >= 4 and axis >= 1
