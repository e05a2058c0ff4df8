"""One small registry for everything that is looked up by name: criteria, allocations, passes.

A family is a package; a file in it that registers something is found on first use, so adding a file is the whole
registration. Installed plug-ins add to a family through the entry point group `onnxprune.<family>`.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from onnxprune.errors import OnnxpruneError, UsageError

T = TypeVar("T")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'l1'?` for a near miss, else the list of what there is."""
    options = sorted(known)
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else f"; there are: {', '.join(options)}"


def load_package(package: str) -> None:
    """Import every module of `package`, then the plug-ins of its entry point group: they register themselves.

    Raises OnnxpruneError with one line for a plug-in that fails.
    """
    root = importlib.import_module(package)
    for module in sorted(info.name for info in pkgutil.iter_modules(root.__path__)):
        importlib.import_module(f"{package}.{module}")
    for entry in sorted(entry_points(group=package), key=lambda found: found.name):
        try:
            entry.load()
        except Exception as error:  # whatever a stranger's module raises
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            name = f"plug-in '{entry.name}' ({entry.value}) of {package}"
            raise OnnxpruneError(f"{name} cannot be loaded: {said}; update or uninstall it") from error


class Registry(Generic[T]):
    """Names to entries of one family, with a guard against duplicates and a suggestion for misspelt names."""

    def __init__(self, family: str, package: str) -> None:
        self.family = family
        self.package = package
        self._entries: dict[str, T] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: make the entry known as `name`. Raises ValueError when the name is taken."""

        def add(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self.family} '{name}' is registered twice")
            self._entries[name] = entry
            return entry

        return add

    def names(self) -> list[str]:
        """All names of the family, sorted."""
        self._load()
        return sorted(self._entries)

    def __getitem__(self, name: str) -> T:
        """The entry called `name`. Raises UsageError with the nearest name when there is none."""
        self._load()
        if name not in self._entries:
            raise UsageError(f"unknown {self.family} '{name}'{did_you_mean(name, self._entries)}")
        return self._entries[name]

    def _load(self) -> None:
        if not self._loaded:
            self._loaded = True
            load_package(self.package)
