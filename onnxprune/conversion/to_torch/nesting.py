"""Lines of `forward` as a person writes them: a value that only the next line reads goes into that line.

conv = self.conv(x)
bn = self.bn(conv)           becomes         relu = torch.relu(self.bn(self.conv(x)))
relu = torch.relu(bn)
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

# Longer lines, and calls inside of more calls, are harder to read than a name is.
_WIDEST, _DEEPEST = 88, 3


@dataclass(frozen=True)
class Assignment:
    """`target = expression`; the target of several outputs is a tuple of names."""

    target: str
    expression: str

    @property
    def variables(self) -> list[str]:
        """The names of the target."""
        return [name for name in _names(self.target) if name != "_"]


def nested(lines: Sequence[Assignment], results: Sequence[str]) -> list[Assignment]:
    """The lines that the results need, of which one takes in another that it alone reads."""
    needed, uses = _needed(lines, results)
    kept: list[Assignment] = []
    for line in needed:
        while kept and uses[kept[-1].target] == 1 and kept[-1].target in _names(line.expression):
            joined = _put(line.expression, kept[-1].target, kept[-1].expression)
            if len(f"{line.target} = {joined}") > _WIDEST or _depth(_tree(joined)) > _DEEPEST:
                break
            kept.pop()
            line = replace(line, expression=joined)
        kept.append(line)
    return kept


def _needed(lines: Sequence[Assignment], results: Sequence[str]) -> tuple[list[Assignment], Counter[str]]:
    """The lines that the results depend on, with `_` for what nothing reads, and how often every name is read."""
    uses = Counter(name for result in results for name in _names(result))
    kept: list[Assignment] = []
    for line in reversed(lines):
        if any(name in uses for name in _names(line.target)):
            uses.update(_names(line.expression))
            kept.append(Assignment(_target(_tree(line.target), uses), line.expression))
    return kept[::-1], uses


def _target(node: ast.expr, uses: Counter[str], *, outermost: bool = True) -> str:
    if isinstance(node, ast.Name):
        return node.id if node.id in uses else "_"
    assert isinstance(node, ast.Tuple)
    parts = [_target(part, uses, outermost=False) for part in node.elts]
    if outermost:
        return f"{parts[0]}," if len(parts) == 1 else ", ".join(parts)
    return "_" if set(parts) == {"_"} else f"({', '.join(parts)})"


def renamed(text: str, names: Mapping[str, str]) -> str:
    """An expression, or a target, with other names of variables."""
    return _replaced(text, {node: names[node.id] for node in _variables(text) if node.id in names})


def _put(text: str, name: str, inner: str) -> str:
    """An expression in place of a name, in brackets where it would fall apart."""
    tree = ast.parse(text, mode="eval")
    apart = {part for node in ast.walk(tree) for part in _set_apart(node)}
    whole = isinstance(_tree(inner), ast.Call | ast.Name | ast.Attribute | ast.Subscript)
    found = (node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == name)
    return _replaced(text, {node: inner if whole or node in apart else f"({inner})" for node in found})


def _set_apart(node: ast.AST) -> Iterator[ast.AST]:
    """The parts that commas or brackets part from all others."""
    if isinstance(node, ast.Call):
        yield from (*node.args, *(each.value for each in node.keywords))
    elif isinstance(node, ast.Tuple | ast.List):
        yield from node.elts
    elif isinstance(node, ast.Subscript):
        yield node.slice
    elif isinstance(node, ast.Expression):
        yield node.body


def _replaced(text: str, parts: Mapping[ast.Name, str]) -> str:
    for node, new in sorted(parts.items(), key=lambda each: -each[0].col_offset):
        text = text[: node.col_offset] + new + text[node.end_col_offset :]
    return text


def _tree(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def _variables(text: str) -> list[ast.Name]:
    return [node for node in ast.walk(_tree(text)) if isinstance(node, ast.Name)]


def _names(text: str) -> list[str]:
    return [node.id for node in _variables(text)]


def _depth(node: ast.AST) -> int:
    """Calls inside of the arguments of calls; a chain of methods is one."""
    if isinstance(node, ast.Call):
        inner = max((_depth(each) for each in (*node.args, *node.keywords)), default=0)
        return max(_depth(node.func), 1 + inner)
    return max(map(_depth, ast.iter_child_nodes(node)), default=0)
