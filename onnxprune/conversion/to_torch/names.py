"""Names of variables and of parts of a module, whatever a file calls its nodes."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterable

from onnxprune.analysis.names import distinct

_KEYWORDS = {*keyword.kwlist, *keyword.softkwlist}
_OF_THE_FILE = {"F", "Net", "Path", "Tensor", "WEIGHTS", "load", "load_file", "nn", "self", "torch", "weights"}
_LIKE_A_DIGIT = {"l"}


class Names:
    """Gives out names that are not taken yet; one that Python or torch uses gets an underscore behind it.

    Args:
        reserved: names that are used.
        lower: all letters become small ones.
    """

    def __init__(self, reserved: Iterable[str], *, lower: bool) -> None:
        self._reserved, self._lower = frozenset(reserved), lower
        self._taken = set(self._reserved)

    def new(self, called: str) -> str:
        """A name for what is called so; of anything that is no name, only the words are kept."""
        words = re.sub(r"\W+", "_", called, flags=re.ASCII).strip("_") or "value"
        words = f"v{words}" if words[0].isdigit() else words
        words = words.lower() if self._lower else words
        return distinct(f"{words}_" if words in self._reserved else words, self._taken).replace("#", "_")


def of_variables() -> Names:
    """For variables of `forward`."""
    return Names({*_KEYWORDS, *dir(builtins), *_OF_THE_FILE, *_LIKE_A_DIGIT}, lower=True)


def of_members() -> Names:
    """For modules, parameters and buffers: torch's modules have methods of their own."""
    from torch import nn

    return Names({*_KEYWORDS, *dir(nn.Module())}, lower=False)
