"""One small registry for everything that is looked up by name: criteria, allocations, passes.

A family is a package; a file in it that registers something is found on first use, so adding a file is the whole
registration. Installed plug-ins add to a family through the entry point group `onnxprune.<family>`.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from onnxprune.errors import OnnxpruneError, UsageError
from onnxprune.support.messages import did_you_mean

T = TypeVar("T")


def load_package(package: str, group: str, leaf: str = "") -> None:
    """Import every module of `package` and of the packages in it, then the plug-ins of the entry point group `group`:
    they register themselves. A group keeps its name wherever the package moves, for plug-ins name it.

    With `leaf`, of the packages inside only the modules of that name are imported. Raises OnnxpruneError with one line
    for a plug-in that fails.
    """
    root = importlib.import_module(package)
    for module in sorted(_modules(list(root.__path__), f"{package}.", leaf)):
        importlib.import_module(module)
    for entry in sorted(entry_points(group=group), key=lambda found: found.name):
        try:
            entry.load()
        except Exception as error:  # whatever a stranger's module raises
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            name = f"plug-in '{entry.name}' ({entry.value}) of {group}"
            raise OnnxpruneError(f"{name} cannot be loaded: {said}; update or uninstall it") from error


def _modules(folders: list[str], prefix: str, leaf: str) -> Iterator[str]:
    """The modules in folders and below, without importing any."""
    for info in pkgutil.iter_modules(folders, prefix):
        name = info.name.rpartition(".")[2]
        if info.ispkg:
            inside = [os.path.join(folder, name) for folder in folders]
            below = _modules(inside, f"{info.name}.", leaf)
            yield from (each for each in below if not leaf or each.rpartition(".")[2] == leaf)
        else:
            yield info.name


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

    def __init__(self, family: str, package: str, group: str, leaf: str = "") -> None:
        self.family = family
        self.package = package
        self.group = group
        self.leaf = leaf
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
            load_package(self.package, self.group, self.leaf)
