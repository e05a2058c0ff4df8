"""The check by mutants itself: what it changes, and that it sees the difference."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests import mutants
from tests.mutants import EQUIVALENT, PACKAGE, TESTS, changed_module, mutants_of

WEIGHTS = "steps/prune/criteria/weights.py"


def test_every_mutant_is_another_module() -> None:
    whole = ast.unparse(ast.parse((PACKAGE / WEIGHTS).read_text(encoding="utf-8")))
    changed = [ast.unparse(changed_module(mutant)) for mutant in mutants_of(WEIGHTS)]
    assert len(set(changed)) == len(changed) > 40
    assert whole not in changed


def test_all_files_and_tests_are_there_and_what_is_equivalent_is_found() -> None:
    for file, tests in TESTS.items():
        assert (PACKAGE / file).exists()
        assert all((mutants.ROOT / "tests" / name).exists() for name in tests.split())
    for file, known in EQUIVALENT.items():
        assert sum(mutant.equivalent for mutant in mutants_of(file)) == len(known)


@pytest.mark.slow
def test_mutants_of_the_criteria_on_weights_die() -> None:
    """Every eighth; `python -m tests.mutants` tries them all, of all files."""
    command = [sys.executable, "-m", "tests.mutants", WEIGHTS, "--every", "8"]
    found = subprocess.run(command, cwd=mutants.ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
