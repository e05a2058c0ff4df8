"""Sentences for people: suggestions for misspelt names, errors of libraries on one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Names of fewer letters differ much by one of them.
_SHORT = 4


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'l1'?` for a near miss, else the list of what there is."""
    options = sorted(known)
    cutoff = 0.5 if len(name) < _SHORT else 0.6  # 'l3' is near 'l2', 'bytes' is not near 'labels'
    near = difflib.get_close_matches(name, options, n=1, cutoff=cutoff)
    return f"; did you mean '{near[0]}'?" if near else f"; there are: {', '.join(options)}"


def one_line(error: BaseException) -> str:
    """The first line of an error's message that says something, for messages to people."""
    import onnx_ir as ir  # takes a while to load, and `did_you_mean` is used before anything is

    while isinstance(error, ir.serde.SerdeError) and error.__cause__ is not None:
        error = error.__cause__  # the outer ones only name the function that failed
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    return said[:300] if said else type(error).__name__
