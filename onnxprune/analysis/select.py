"""Which groups a request speaks of: by kind, or by a pattern on the names of groups, tensors and nodes."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from onnxprune.analysis.groups import Analysis, Group
from onnxprune.errors import UsageError
from onnxprune.model.graph import operator_names
from onnxprune.support.messages import did_you_mean

KINDS = ("channels", "head-dim", "heads", "hidden", "kv-heads", "neurons", "recurrent")


def select(analysis: Analysis, only: Sequence[str], skip: Sequence[str]) -> list[Group]:
    """The groups that `only` names (all if empty) less those that `skip` names.

    Each entry is a kind, or a shell pattern (`*`, `?`, `[...]`) for a group id, a tensor or a node that reads one of
    its weights. Raises UsageError for an entry that matches nothing.
    """
    names = {group.id: _names(analysis, group) for group in analysis.groups}
    for pattern in (*only, *skip):
        if pattern not in KINDS and not any(_matches(names[group.id], pattern) for group in analysis.groups):
            hint = "" if set(pattern) & set("*?[") else did_you_mean(pattern, KINDS)
            raise UsageError(f"nothing in this model matches '{pattern}'{hint}; for all names: onnxprune inspect -v")
    chosen = [g for g in analysis.groups if not only or any(_speaks_of(g, names[g.id], p) for p in only)]
    return [g for g in chosen if not any(_speaks_of(g, names[g.id], p) for p in skip)]


def _speaks_of(group: Group, names: set[str], pattern: str) -> bool:
    return group.kind == pattern if pattern in KINDS else _matches(names, pattern)


def _matches(names: set[str], pattern: str) -> bool:
    return pattern in names or any(fnmatchcase(name, pattern) for name in names)


def _names(analysis: Analysis, group: Group) -> set[str]:
    tensors = {occurrence.tensor for occurrence in group.occurrences}
    readers = {
        name
        for node, name in operator_names(analysis.model)
        if any(v is not None and v.name in tensors for v in node.inputs)
    }
    return {group.id} | tensors | readers
