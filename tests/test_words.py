"""One word for one thing: no public class or function of the package has the name of another.

What is named after an operator of ONNX is left out: each room has its own `gather`, in a table by operator. So is
`command`, which every file of `cli/commands/` must have, and `main`, which a program is entered by.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import onnxprune

PACKAGE = Path(onnxprune.__file__).resolve().parent
PLACES = (PACKAGE, PACKAGE.parent / "passes")
BY_OPERATOR = {"ops"}
BY_FORM = {"command", "main"}
# The word that a user writes is also the name of a member of a family, or of what it rests on: one metric of one model.
PUBLIC = {"sensitivity", "cosine", "evaluate"}


def public_names() -> dict[str, set[str]]:
    """Name -> files that define it at their top level."""
    found: dict[str, set[str]] = defaultdict(set)
    for file in {file.resolve() for place in PLACES for file in place.rglob("*.py")}:
        if BY_OPERATOR & set(file.parts):
            continue
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                found[node.name].add(str(file.relative_to(PACKAGE.parent)))
    return found


def test_no_name_means_two_things() -> None:
    names = public_names()
    assert len(names) > 500
    twice = {name: sorted(files) for name, files in names.items() if len(files) > 1}
    assert not {name: files for name, files in twice.items() if name not in BY_FORM | PUBLIC}


def test_no_class_has_the_name_of_another_not_even_inside_modules() -> None:
    found: dict[str, set[str]] = defaultdict(set)
    for file in {file.resolve() for place in PLACES for file in place.rglob("*.py")}:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef):
                found[node.name].add(str(file.relative_to(PACKAGE.parent)))
    assert {name: sorted(files) for name, files in found.items() if len(files) > 1} == {}
