"""One registry for everything that is looked up by name: criteria, metrics, recovery methods, rules of operators.

A family is a package. Its files register their members with a decorator and are imported on the first look into the
registry, so adding a file is the whole registration. Installed plug-ins add to a family through its entry point group,
`onnxprune.<family>`.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
import pkgutil
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from math import isfinite
from typing import Any, Generic, TypeVar

from onnxprune.errors import OnnxpruneError, UsageError
from onnxprune.support.messages import did_you_mean

T = TypeVar("T")
Name = str | tuple[str, str]  # an operator is named by its domain and its name
K = TypeVar("K", bound=Name)

_LOCK = threading.RLock()
_LOADED: set[tuple[str, str]] = set()


def load_package(package: str, group: str, leaf: str = "") -> None:
    """Import every module of `package` and of the packages in it, then the plug-ins of the entry point group `group`:
    they register themselves. A second call does nothing. A group keeps its name wherever the package moves, for
    plug-ins name it.

    With `leaf`, of the packages inside only the modules of that name are imported. Raises OnnxpruneError with one line
    for a plug-in that fails.
    """
    with _LOCK:  # another thread must not see half of a family
        if (package, group) in _LOADED:
            return
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
        _LOADED.add((package, group))


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


class Registry(Generic[K, T]):
    """The members of one family by name.

    Args:
        family: what a member is called in messages, like "criterion".
        package: its files register the members.
        group: the entry point group of plug-ins.
        leaf: of the packages inside, only modules of that name register members.
    """

    def __init__(self, family: str, package: str, group: str, leaf: str = "") -> None:
        self.family = family
        self.package = package
        self.group = group
        self.leaf = leaf
        self._members: dict[K, T] = {}

    def register(self, *names: K) -> Callable[[T], T]:
        """Decorator: make the member known by these names. Raises ValueError when one is taken."""

        def add(member: T) -> T:
            for name in names:
                if name in self._members:
                    raise ValueError(f"{self.family} '{operator_text(name)}' is registered twice")
                self._members[name] = member
            return member

        return add

    def names(self) -> list[K]:
        """All names of the family, sorted."""
        load_package(self.package, self.group, self.leaf)
        return sorted(self._members)

    def get(self, name: K) -> T | None:
        """The member called `name`, None when there is none."""
        load_package(self.package, self.group, self.leaf)
        return self._members.get(name)

    def __contains__(self, name: object) -> bool:
        load_package(self.package, self.group, self.leaf)
        return name in self._members

    def __iter__(self) -> Iterator[K]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def __getitem__(self, name: K) -> T:
        """The member called `name`. Raises UsageError with the nearest name when there is none."""
        found = self.get(name)
        if found is None:
            raise UsageError(self.unknown(name))
        return found

    def unknown(self, name: K, *also: str) -> str:
        """The message for a name that is not known, with the nearest one of the family and of `also`."""
        text = operator_text(name)
        return f"unknown {self.family} '{text}'{did_you_mean(text, [*map(operator_text, self), *also])}"

    def listing(self) -> list[dict[str, Any]]:
        """Per member its name, a one-line summary, and the other fields that are words, numbers or lists of words.

        Samples are for tests and stay out.
        """
        return [
            {"name": operator_text(name), "summary": summary(self[name]), **_plain_fields(self[name])} for name in self
        ]


def operator_text(name: Name) -> str:
    """`l1`, `Relu`, `com.microsoft.Gelu`."""
    return name if isinstance(name, str) else ".".join(filter(None, name))


def summary(member: object) -> str:
    """The field or property `summary` of a member, or the first line of its docstring."""
    said = getattr(member, "summary", None) or inspect.getdoc(member) or ""
    return next(iter(str(said).strip().splitlines()), "")


def _plain_fields(member: object) -> dict[str, Any]:
    """The fields of a dataclass that can be shown, without those that every listing has."""
    if isinstance(member, type) or not dataclasses.is_dataclass(member):
        return {}
    given = {field.name: getattr(member, field.name) for field in dataclasses.fields(member)}
    hidden, said = ("name", "summary", "sample"), summary(member)
    return {name: value for name, value in given.items() if name not in hidden and _is_plain(value) and value != said}


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(isinstance(entry, str) for entry in value)
    return value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and isfinite(value))
