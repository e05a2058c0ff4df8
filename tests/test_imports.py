"""The import direction, read from the import statements: what a part of the house may know of the others.

A new module finds its place in ROOMS: it may import what stands above it, never what stands beside or below.
"""

from __future__ import annotations

import ast
import functools
import tomllib
from collections.abc import Iterator
from pathlib import Path

import onnx.defs
import pytest

from tests.conftest import modules_after

PACKAGE = Path(__file__).resolve().parents[1] / "onnxprune"
PASSES = PACKAGE.parent / "passes"  # a link in the package leads there, which Windows may have as a text file

ROOMS = [
    ["errors", "dims"],
    ["support"],
    ["model"],
    ["ops"],
    ["data", "runtime"],
    ["analysis"],
    ["statistics", "passes", "evaluation"],
    ["steps.plan", "conversion"],
    ["steps.base", "steps.state"],
    ["steps.recover", "steps.train", "steps.clean", "steps.checkpoint", "steps.evaluate"],
    ["steps.rewind", "steps.reinitialize", "steps.quantize"],
    ["steps.prune"],
    ["steps.repeat", "steps.sparsify"],
    ["pipeline"],
    ["report"],
    ["cli"],
    ["__init__", "__main__"],
]
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}

# In these the files do not know each other, so that one can be added, read or deleted alone; a base they may share.
BASES = {
    "ops": {
        "base",
        "findings",
        "evaluate",
        "compute",
        "matmul_view",
        "samples",
        "dequantize",
        "requantize",
        "weight_paths",
    },
    "ops/microsoft": set(),
    "ops/constants": {"base", "linear"},
    "conversion/sources": set(),
    "conversion/to_torch/ops": {"layers", "layout"},
    "data/sources": set(),
    "evaluation/metrics": {"base"},
    "evaluation/gate/budgets": {"base"},
    "runtime/torch/losses": {"base"},
    "runtime/torch/ops": {"base"},
    "runtime/torch/ops/microsoft": set(),
    "steps/prune/criteria": {"base", "_observed"},
    "pipeline/search/objectives": {"base"},
    "pipeline/search/samplers": {"base"},
    "steps/prune/allocation": {"base", "_knapsack", "_greedy", "_nesting"},
    "steps/prune/schedules": set(),
    "steps/train/methods": set(),
    "steps/train/penalties": set(),
    "steps/train/rates": set(),
    "steps/quantize/ranges": {"base"},
    "steps/quantize/types": set(),
    "steps/sparsify/criteria": set(),
    "steps/sparsify/allocation": set(),
    "passes": {"base", "write_back"},
}

FILES = sorted({*(path for path in PACKAGE.rglob("*.py") if "passes" not in path.parts), *PASSES.glob("*.py")})


def module_of(path: Path) -> tuple[str, ...]:
    """("ops", "linear") for onnxprune/ops/linear.py."""
    return path.relative_to(PACKAGE if PACKAGE in path.parents else PACKAGE.parent).with_suffix("").parts


@functools.cache
def imports(path: Path) -> tuple[tuple[str, ...], ...]:
    """Every module that a file imports, at the top or inside a function."""
    found: list[tuple[str, ...]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            base = tuple((node.module or "").split("."))
            found += ((*base, alias.name) for alias in node.names)
    return tuple(found)


def own_imports(path: Path) -> Iterator[tuple[str, ...]]:
    """The same for modules of this package, without the package's name."""
    yield from (name[1:] for name in imports(path) if name[0] == "onnxprune" and len(name) > 1)


def room_of(module: tuple[str, ...]) -> str:
    """The room that a module is in; `steps` has rooms of its own, and nothing stands beside them."""
    return ".".join(module[:2]) if module[0] == "steps" and module[1:] != ("__init__",) else module[0]


def level_of(room: str) -> int:
    """A step that the rooms do not name stands where `steps.clean` does."""
    return LEVEL[room if room in LEVEL or not room.startswith("steps.") else "steps.clean"]


def test_every_module_has_its_place() -> None:
    for path in FILES:
        room = room_of(module_of(path))
        assert room == "steps" or level_of(room) >= 0
    assert {path.stem for path in PACKAGE.glob("*.py")} == {"errors", "__init__", "__main__"}


def test_there_are_few_floors() -> None:
    """Where a floor is not one more step, or the door."""
    floors = {rooms[0].partition(".")[0] for rooms in ROOMS} - {"__init__", "recipes"}
    assert len(floors) <= 12


@pytest.mark.parametrize("path", FILES, ids=lambda path: ".".join(module_of(path)))
def test_imports_come_from_above(path: Path) -> None:
    room = room_of(module_of(path))
    for name in own_imports(path):
        other = room_of(name)
        allowed = other == room or level_of(other) < level_of(room) or {room, other} == {"steps.base", "steps.state"}
        assert allowed, f"{room} may not import {other}"


@pytest.mark.parametrize("room", BASES)
def test_files_of_a_family_do_not_know_each_other(room: str) -> None:
    place = tuple(room.split("/"))
    folder = PASSES if room == "passes" else PACKAGE / room
    for path in folder.glob("*.py"):
        inside = (name[len(place) :] for name in own_imports(path) if name[: len(place)] == place)
        siblings = {name[0] for name in inside if name}
        files = {sibling for sibling in siblings if (folder / f"{sibling}.py").exists()}
        assert files <= BASES[room] - {path.stem}, path.name


# Tables of operators, and what may be named elsewhere: nodes that are made.
TABLES = ("conversion/to_torch/ops/", "ops/", "runtime/torch/ops/")
NAMED = {
    "analysis/canonicalize.py": {"Identity"},  # hands a value out under the name of an output
    "conversion/rewriting.py": {"Constant", "Erf", "Sub"},  # what an operator is written in that ONNX does not have
    "conversion/torch/torchscript.py": {"Identity"},  # puts a weight under a second name
    "cli/doctor.py": {"Conv", "Relu", "GlobalAveragePool", "Flatten", "MatMul"},  # its model for a try
    "dims/__init__.py": {"Concat"},  # a form of dimensions
    "model/inner_values.py": {"Identity", "Constant"},  # hand values out of bodies
    "passes/fold_constants.py": {"Add"},
    "passes/remove_units.py": {"Mul", "Div", "Where", "Concat"},  # these correct computed sizes
    "passes/resize_states.py": {"Concat", "ConstantOfShape", "Gather", "GatherND", "ScatterND", "Shape", "Transpose"},
    "passes/write_back.py": {"Add", "DequantizeLinear"},
    "steps/quantize/insert.py": {"QuantizeLinear", "DequantizeLinear"},  # the pairs
    "steps/quantize/prepare.py": {"Gemm"},
    "steps/quantize/unquantize.py": {"Relu"},
    "steps/quantize/types/dynamic.py": {"DynamicQuantizeLinear", "MatMulInteger", "Cast", "Mul", "Add"},
    "steps/quantize/types/half.py": {"Cast"},
    "steps/train/integers.py": {"QuantizeLinear", "Clip", "Exp", "Mul"},  # it puts them in
    "steps/train/normalization.py": {"BatchNormalization"},  # it puts them in
    "runtime/torch/functions.py": {"Optional"},
    "statistics/gradients.py": {"Transpose"},
    "runtime/torch/sizes.py": {"Shape", "Size"},  # the executor's own words for what depends on shapes alone
}
MODULES = {f"{'/'.join(module_of(path))}.py": path for path in FILES}


@functools.cache
def operators() -> set[str]:
    return {schema.name for schema in onnx.defs.get_all_schemas()}


@pytest.mark.parametrize("module", [module for module in MODULES if not module.startswith(TABLES)])
def test_the_engine_names_no_operator(module: str) -> None:
    """What is special about an operator stands in ops/."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert strings & operators() == NAMED.get(module, set())


def test_torch_is_imported_where_it_is_needed_only() -> None:
    allowed = (
        "conversion/torch/",
        "conversion/to_torch/file.py",
        "conversion/to_torch/names.py",
        "conversion/sources/",
        "runtime/torch/",
        "statistics/derivatives.py",
        "statistics/gradients.py",
        "statistics/weight_gradients.py",
        "steps/train/",
        "pipeline/search/samplers/amc.py",
    )
    for module, path in MODULES.items():
        assert module.startswith(allowed) or all(name[0] != "torch" for name in imports(path)), module


HEAVY = {"torch", "onnxruntime", "networkx", "sympy", "onnx", "onnx_ir", "numpy", "rich", "pydantic"}


def run_by_hand(*arguments: str) -> str:
    """The code that does what the command line does."""
    return f"import sys; sys.argv = {['onnxprune', *arguments]!r}; from onnxprune.cli import main; main()"


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not modules_after("import onnxprune") & HEAVY


COMMANDS = sorted(path.stem for path in (PACKAGE / "cli" / "commands").glob("[!_]*.py"))
QUICK = [
    ["--help"],
    ["--version"],
    ["--halp"],
    ["compess"],
    ["compress", "--retio", "1", "model.onnx"],
    ["compress"],
]


@pytest.mark.parametrize("arguments", [*QUICK, *([command, "--help"] for command in COMMANDS)], ids=" ".join)
def test_what_needs_no_model_loads_nothing_heavy(arguments: list[str]) -> None:
    assert "click" in (loaded := modules_after(run_by_hand(*arguments)))
    assert not loaded & HEAVY


def test_the_main_job_loads_what_it_needs(digits: dict[str, Path], tmp_path: Path) -> None:
    """sympy takes as long to load as the rest together, see support/lazy.py; networkx is for who looks at the graph,
    torch for who trains or has inputs made up."""
    how = ("--ratio", "0.5", "--recover", "none")
    job = run_by_hand("compress", str(digits["transformer"]), *how, "-o", str(tmp_path / "small.onnx"), "-q")
    assert modules_after(job) & HEAVY == {"onnxruntime", "onnx", "onnx_ir", "numpy"}
    assert (tmp_path / "small.onnx").exists()


def test_every_package_is_in_the_wheel() -> None:
    root = Path(__file__).parent.parent
    listed = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(init.parent.relative_to(root).parts) for init in root.glob("onnxprune/**/__init__.py")}
    assert set(listed) == found | {"onnxprune.passes", "onnxprune.recipes"}
