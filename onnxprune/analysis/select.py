"""Which groups a request speaks of: by kind, or by a pattern on their names or on those of tensors and nodes."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from onnxprune.analysis.groups import Analysis, Group
from onnxprune.errors import UsageError
from onnxprune.model.graph import operator_names
from onnxprune.support.messages import did_you_mean

KINDS = ("channels", "head-dim", "heads", "hidden", "kv-heads", "neurons", "recurrent")


def select_groups(analysis: Analysis, only: Sequence[str], skip: Sequence[str]) -> list[Group]:
    """The groups that `only` names (all if empty) less those that `skip` names.

    Each entry is a kind, or a shell pattern (`*`, `?`, `[...]`) for names of groups; where it fits none of those, for
    tensors of a group and nodes that read them. Raises UsageError for an entry that matches nothing.
    """
    chosen = {id(group) for pattern in only for group in _named(analysis, pattern)}
    skipped = {id(group) for pattern in skip for group in _named(analysis, pattern)}
    return [group for group in analysis.groups if (not only or id(group) in chosen) and id(group) not in skipped]


def _named(analysis: Analysis, pattern: str) -> list[Group]:
    """The groups that an entry names."""
    if pattern in KINDS:
        return [group for group in analysis.groups if group.kind == pattern]
    found = [group for group in analysis.groups if _matches({group.id}, pattern)]
    found = found or [group for group in analysis.groups if _matches(_touched(analysis, group), pattern)]
    if not found:
        near = get_close_matches(pattern, [group.id for group in analysis.groups], n=1)
        hint = "" if set(pattern) & set("*?[") else did_you_mean(pattern, (*KINDS, *near))
        raise UsageError(f"nothing in this model matches '{pattern}'{hint}; for all names: onnxprune inspect -v")
    return found


def _matches(names: set[str], pattern: str) -> bool:
    return pattern in names or any(fnmatchcase(name, pattern) for name in names)


def _touched(analysis: Analysis, group: Group) -> set[str]:
    """The tensors of a group, the nodes that read them, and how older versions called it."""
    tensors = {occurrence.tensor for occurrence in group.occurrences}
    readers = {
        name
        for node, name in operator_names(analysis.model)
        if any(v is not None and v.name in tensors for v in node.inputs)
    }
    return {group.first_axis} | tensors | readers
