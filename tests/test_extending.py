"""docs/extending.md is literally true: its files, put into a copy of the repository, leave everything there green.

The copy gets the files of the page and the pages that `docs/generate.py` writes, nothing else. The quick tests run the
contract suites of the new members and what looks at the repository as a whole; all of the suites wait for `-m slow`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.doc_examples import blocks

PAGE = (ROOT / "docs" / "extending.md").read_text()
EXAMPLES = {block.name: block.text for block in blocks(PAGE) if block.name and "/" in block.name}

# How the test of an example is called that has to go red where a text of the example is replaced by another.
MEMBERS = {
    "onnxprune/ops/microsoft/distance.py": ("test_rule[CDist", "op.contract(1, 1)", "op.free(op.x[1][1])"),
    "onnxprune/runtime/torch/ops/microsoft/distance.py": ("samples[CDist", "torch.cdist(a, b)", "torch.cdist(a, -b)"),
    "onnxprune/steps/prune/criteria/largest.py": ("largest", "np.zeros(group.units)", "np.arange(1.0 * group.units)"),
    "tests/criteria/test_largest.py": ("test_largest", "[3, 5, 2]", "[3, 4, 2]"),
    "onnxprune/steps/prune/allocation/larger_first.py": ("[larger-first", "t ** (", "(1 - t) ** ("),
    "onnxprune/steps/prune/schedules/half_cosine.py": ("[half-cosine", "1 + math.cos", "1 - math.cos"),
    "onnxprune/steps/train/rates/square_root.py": (
        "[square-root",
        "(1 - fallen(options, done))",
        "(fallen(options, done))",
    ),
    "onnxprune/steps/train/methods/weight_noise.py": (
        "[weight-noise",
        "if training else 0.0",
        "if not training else 1.0",
    ),
    "onnxprune/steps/train/penalties/log_sum.py": ("[log-sum", "weights[name].abs()", "weights[name].detach().abs()"),
    "onnxprune/steps/quantize/ranges/halves.py": ("[normal-halves", "limit / 2)]", "limit / 2)[::-1]]"),
    "passes/skip_identity.py": ("[SkipIdentity", "bool(found)", "True"),
    "onnxprune/steps/recover/rescale.py": ("[rescale", "scale * evidence.matrix", "-scale * evidence.matrix"),
    "onnxprune/steps/halve.py": ("[halve", "copy_model(state.model)", "state.model"),
    "onnxprune/data/sources/csv_lines.py": ("[csv", "reshape(1, ", "reshape(1, 1, "),
    "onnxprune/evaluation/metrics/largest_error.py": ("[mean-largest-error", ".max(axis=1)", ".min(axis=1)"),
    "onnxprune/runtime/torch/losses/huber.py": ("[huber", "huber_loss", "mse_loss"),
    "onnxprune/evaluation/gate/budgets/nodes.py": ("[max-nodes", "limit.allows(found, 0)", "True"),
    "onnxprune/cli/commands/size.py": ("[size", '"onnxprune size model.onnx --json"', '"onnxprune size --jsn"'),
}
FOUND = sorted({found for found, _, _ in MEMBERS.values()})
NAMES = sorted({found.rpartition("[")[2] for found in FOUND})
# The suites that run over everything that is registered.
CONTRACTS = [
    "tests/ops/test_contract.py",
    "tests/runtime/test_torch_samples.py",
    "tests/criteria",
    "tests/allocation",
    "tests/steps/test_contract.py",
    "tests/steps/prune/test_schedule.py",
    "tests/train/test_optim.py",
    "tests/train/test_methods.py",
    "tests/quantize/test_ranges.py",
    "tests/passes/test_contract.py",
    "tests/recovery/test_contract.py",
    "tests/data/test_contract.py",
    "tests/test_metrics.py",
    "tests/runtime/test_torch_loss.py",
    "tests/gate/test_contract.py",
]
WHOLE = ["tests/test_docs.py", "tests/test_imports.py", "tests/test_words.py", "tests/cli", "tests/support"]
PARTS = ("onnxprune", "passes", "recipes", "models", "docs", "tests", "examples", "benchmarks")


class Tree:
    """A copy of the repository with the files of the page in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for part in PARTS:
            shutil.copytree(ROOT / part, folder / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ROOT.iterdir():
            if file.is_file():
                shutil.copy(file, folder)
        for path, text in EXAMPLES.items():
            assert not (folder / path).exists(), f"{path} is there already"
            (folder / path).write_text(text)

    def run(self, *command: str) -> str:
        """What a command prints in it. Fails where the command does."""
        done = self.tried(*command)
        assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def tried(self, *command: str) -> subprocess.CompletedProcess[str]:
        """The same for a command that may fail."""
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "COLUMNS": "128"}
        command = (sys.executable, *command) if command[0].startswith("-") or command[0].endswith(".py") else command
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tree]:
    pytest.importorskip("torch", reason="some of the examples need it")
    made = Tree(tmp_path_factory.mktemp("extended") / "repository")
    made.run("docs/generate.py")
    yield made
    shutil.rmtree(made.folder)


def pytest_of(*arguments: str) -> tuple[str, ...]:
    return ("-m", "pytest", "-p", "no:cacheprovider", "-q", *arguments)


def test_every_kind_of_file_has_an_example() -> None:
    assert set(EXAMPLES) == set(MEMBERS)
    folders = re.findall(r"^\| .*?\| `(\S+?)/` \|", PAGE, re.MULTILINE)
    assert len(folders) == len(MEMBERS) - 1  # a criterion has a test of its own
    assert all(any(path.startswith(folder) for path in EXAMPLES) for folder in folders)


def outcomes(tree: Tree, outcome: str) -> list[str]:
    """The tests of the new members that pass, or that do not."""
    done = tree.tried(*pytest_of("-rA", "-k", " or ".join(NAMES), *CONTRACTS, "tests/test_docs.py"))
    assert done.returncode == (0 if outcome == "PASSED" else 1), f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    return re.findall(rf"^{outcome} .*$", done.stdout, re.MULTILINE)


def test_new_members_keep_the_contracts_of_their_families(tree: Tree) -> None:
    """Each is found without a word elsewhere, and at least one test is about it."""
    passed = outcomes(tree, "PASSED")
    assert [found for found in FOUND if not any(found in line for line in passed)] == []


def test_the_repository_is_in_order(tree: Tree) -> None:
    if shutil.which("ruff") is None:
        pytest.skip("ruff is in the extra `dev`")
    tree.run("ruff", "check", "--no-cache", ".")
    tree.run("ruff", "format", "--no-cache", "--check", ".")
    tree.run("docs/generate.py", "--check")


@pytest.mark.slow
def test_the_lines_below_the_examples_run(tree: Tree) -> None:
    for name, copy in (("resnet", "model.onnx"), ("calibration", "samples.npz")):
        shutil.copy(tree.folder / "models" / f"digits_{name}{Path(copy).suffix}", tree.folder / copy)
    tree.run("-c", "from tests.doc_examples import run_page; run_page(open('docs/extending.md').read())")


@pytest.mark.slow
def test_all_suites_and_types(tree: Tree) -> None:
    tree.run("-m", "mypy", "--cache-dir", str(tree.folder / "types"))
    tree.run(*pytest_of(*CONTRACTS, *WHOLE))


@pytest.mark.slow
def test_broken_examples_are_found(tree: Tree) -> None:
    """All are broken at once; each has a test that goes red."""
    try:
        for path, (_, old, new) in MEMBERS.items():
            assert old in EXAMPLES[path]
            (tree.folder / path).write_text(EXAMPLES[path].replace(old, new, 1))
        failed = outcomes(tree, "FAILED")
    finally:
        for path, text in EXAMPLES.items():
            (tree.folder / path).write_text(text)
    assert [found for found in FOUND if not any(found in line for line in failed)] == []
