"""One small registry for everything that is looked up by name: criteria, allocations, passes.

A family is a package; a file in it that registers something is found on first use, so adding a file is the whole
registration. Installed plug-ins add to a family through the entry point group `onnxprune.<family>`.
"""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

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


def imported_function(spec: str) -> Callable[..., Any]:
    """A function of the user, named as `module:function` and imported as from the current folder.

    Raises UsageError with one line where there is none.
    """
    module_name, _, name = spec.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module raises
        said = (str(error).strip().splitlines() or [""])[0]
        raise UsageError(f"{spec}: {module_name} cannot be imported: {type(error).__name__}: {said}") from error
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UsageError(f"{spec}: {module_name} has no function '{name}'{did_you_mean(name, known)}")
    return function  # type: ignore[no-any-return]


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
