"""The import direction, read from the import statements: what a part of the house may know of the others.

A new module finds its place in ROOMS: it may import what stands above it, never what stands beside or below.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import onnx.defs
import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "onnxprune"

ROOMS = [
    ["errors", "progress", "versions"],
    ["registry"],
    ["dims"],
    ["wire"],
    ["model"],
    ["signature"],
    ["graph"],
    ["ops"],
    ["arithmetic", "bindings"],
    ["inference"],
    ["shapes"],
    ["coupling"],
    ["cost", "plan", "selection", "calibration", "filters"],
    ["cost_terms", "holdout"],
    ["layers"],
    ["runtime"],
    ["metrics"],
    ["criteria", "allocation", "lossless", "recovery"],
    ["passes"],
    ["cleaning", "recover"],
    ["report", "verify", "scoring", "targets", "recipe", "torch_names"],
    ["opening"],
    ["result", "means", "schedule"],
    ["trials", "request"],
    ["sensitivity", "planning"],
    ["meeting"],
    ["iterate"],
    ["pipeline"],
    ["benchmark", "doctor"],
    ["gate"],
    ["cli"],
    ["__init__", "__main__", "pytest_plugin"],
]
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}

# In these the files do not know each other, so that one can be added, read or deleted alone; a base they may share.
BASES = {
    "ops": {"base", "evaluate", "affine"},
    "calibration": {"base", "pixels"},
    "criteria": {"base"},
    "allocation": {"base", "levels", "order"},
    "passes": {"base"},
}

FILES = sorted({*PACKAGE.rglob("*.py"), *(PACKAGE / "passes").glob("*.py")})  # passes is a link to ../passes


def module_of(path: Path) -> tuple[str, ...]:
    """("ops", "linear") for onnxprune/ops/linear.py."""
    return path.relative_to(PACKAGE).with_suffix("").parts


def imports(path: Path) -> Iterator[tuple[str, ...]]:
    """Every module that a file imports, at the top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            base = tuple((node.module or "").split("."))
            yield from ((*base, alias.name) for alias in node.names)


def own_imports(path: Path) -> Iterator[tuple[str, ...]]:
    """The same for modules of this package, without the package's name."""
    yield from (name[1:] for name in imports(path) if name[0] == "onnxprune" and len(name) > 1)


def test_every_module_has_its_place() -> None:
    assert {module_of(path)[0] for path in FILES} == set(LEVEL)


@pytest.mark.parametrize("path", FILES, ids=lambda path: ".".join(module_of(path)))
def test_imports_come_from_above(path: Path) -> None:
    room = module_of(path)[0]
    for name in own_imports(path):
        assert name[0] == room or LEVEL[name[0]] < LEVEL[room], f"{room} may not import {name[0]}"


@pytest.mark.parametrize("room", BASES)
def test_files_of_a_family_do_not_know_each_other(room: str) -> None:
    for path in (PACKAGE / room).glob("*.py"):
        siblings = {name[1] for name in own_imports(path) if name[0] == room and len(name) > 1}
        files = {sibling for sibling in siblings if (PACKAGE / room / f"{sibling}.py").exists()}
        assert files <= BASES[room] - {path.stem}, path.name


# Tables of operators, and what may be named elsewhere: nodes that are made.
TABLES = ("ops/", "lossless/", "runtime/torch_ops/")
NAMED = {
    "doctor.py": {"Conv", "Relu", "GlobalAveragePool", "Flatten", "MatMul"},  # its model for a try
    "passes/fold_constants.py": {"Add"},
    "passes/remove_units.py": {"Mul", "Div", "Where", "Concat"},  # these correct computed sizes
    "recovery/edit.py": {"Add"},
    "runtime/torch_functions.py": {"Optional"},
    "runtime/torch_gradients.py": {"Transpose"},
    "runtime/torch_sizes.py": {"Shape", "Size"},  # the executor's own words for what depends on shapes alone
}
MODULES = [path.relative_to(PACKAGE).as_posix() for path in FILES]


@pytest.mark.parametrize("module", [module for module in MODULES if not module.startswith(TABLES)])
def test_the_engine_names_no_operator(module: str) -> None:
    """What is special about an operator stands in ops/."""
    tree = ast.parse((PACKAGE / module).read_text(encoding="utf-8"))
    strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert strings & {schema.name for schema in onnx.defs.get_all_schemas()} == NAMED.get(module, set())


def test_torch_is_imported_by_the_torch_runtime_only() -> None:
    for path in FILES:
        if any(name[0] == "torch" for name in imports(path)):
            assert module_of(path)[0] == "runtime"
            assert module_of(path)[1].startswith("torch")


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'onnxruntime', 'networkx', 'onnx', 'onnx_ir', 'numpy'}"
    code = f"import sys, onnxprune; print(sorted(set(sys.modules) & {heavy}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_package_is_in_the_wheel() -> None:
    root = Path(__file__).parent.parent
    listed = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(init.parent.relative_to(root).parts) for init in root.glob("onnxprune/**/__init__.py")}
    assert set(listed) == found | {"onnxprune.passes"}
