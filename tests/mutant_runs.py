"""Try mutants: each in a process of its own, forked off one that has loaded numpy, torch and the runtimes already.

The tests of a file are run once as they are, and it is noted which of them come through which line. A mutant is tried
with those that come through its lines, at most 60 of them a line; one that survives them, with all tests of its file.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.mutants import PACKAGE, ROOT, TESTS, Mutant, changed_module

_MOST_TESTS = 60
Lines = dict[int, list[str]]  # by line, the tests that come through it


class Record:
    """A file of what was tried: a line for each mutant, "dead" or "alive", its file with a checksum, its place there.

    Those that are dead are not tried again as long as their file stays as it is.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        lines = [] if path is None or not path.exists() else path.read_text(encoding="utf-8").splitlines()
        self._found = {key: state for state, _, key in (line.partition(" ") for line in lines)}

    def state(self, mutant: Mutant) -> str | None:
        """Is it "dead" or "alive", as far as it was tried?"""
        return self._found.get(_key(mutant))

    def note(self, mutant: Mutant, state: str) -> None:
        """Write down what became of it."""
        self._found[_key(mutant)] = state
        if self.path is not None:
            lines = (f"{state} {key}" for key, state in sorted(self._found.items()))
            self.path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _key(mutant: Mutant) -> str:
    source = (PACKAGE / mutant.file).read_bytes()
    return f"{mutant.file} {zlib.crc32(source):08x} {mutant.place}"


@dataclass
class Trial:
    """What was tried, and what survived; `left` were not begun in time, and never before."""

    tried: list[Mutant] = field(default_factory=list)
    survivors: list[Mutant] = field(default_factory=list)
    left: int = 0

    def leave(self, mutant: Mutant, record: Record) -> None:
        """It is not begun in time: one that survived before counts as it did."""
        if record.state(mutant) == "alive":
            self.tried.append(mutant)
            self.survivors.append(mutant)
        else:
            self.left += 1

    @property
    def share(self) -> float:
        """Of those that die."""
        return 1 - len(self.survivors) / max(len(self.tried), 1)


def try_mutants(chosen: Sequence[Mutant], seconds: float | None, record: Record) -> Trial:
    """Try mutants file by file, in an order by chance; none is begun after `seconds`.

    Raises RuntimeError where the tests of a file are red without a mutant, or where the package is loaded already.
    """
    if any(name == "onnxprune" or name.startswith("onnxprune.") for name in sys.modules):
        raise RuntimeError("the package is loaded already: run this in a process of its own")
    for name in ("numpy", "torch", "onnx", "onnxruntime", "onnx_ir", "networkx", "scipy.stats"):
        __import__(name)
    end = None if seconds is None else time.monotonic() + seconds
    trial = Trial([mutant for mutant in chosen if record.state(mutant) == "dead"])
    chosen = [mutant for mutant in chosen if record.state(mutant) != "dead"]
    groups = sorted({TESTS[mutant.file] for mutant in chosen})  # files with the same tests are looked at together
    random.Random(0).shuffle(groups)
    for tests in groups:
        here = [mutant for mutant in chosen if TESTS[mutant.file] == tests]
        if end is not None and time.monotonic() >= end:
            for mutant in here:
                trial.leave(mutant, record)
            continue
        began = time.monotonic()
        files = sorted({mutant.file for mutant in here})
        lines = tests_by_line(files)
        limit = 30 + 5 * (time.monotonic() - began)
        print(f"{' '.join(files)}: the tests as they are took {time.monotonic() - began:.0f} s", flush=True)
        for mutant in here:
            if end is not None and time.monotonic() >= end:
                trial.leave(mutant, record)
                continue
            trial.tried.append(mutant)
            alive = survives(mutant, lines[mutant.file], limit)
            record.note(mutant, "alive" if alive else "dead")
            if alive:
                trial.survivors.append(mutant)
                print(f"  survives: {mutant}", flush=True)
    return trial


def tests_by_line(files: Sequence[str]) -> dict[str, Lines]:
    """Run the tests that some files share as they are; by file. Raises RuntimeError where they are red."""
    with tempfile.TemporaryDirectory() as folder:
        noted = Path(folder) / "lines.json"
        if not _in_a_fork(lambda: _noting(files, noted), 1200):
            raise RuntimeError(f"the tests of {files[0]} are red as it is: {TESTS[files[0]]}")
        found = json.loads(noted.read_text())
    return {file: {int(line): tests for line, tests in lines.items()} for file, lines in found.items()}


def survives(mutant: Mutant, lines: Lines, limit: float) -> bool:
    """Are the tests of its file green with the mutant? Those over `limit` seconds are red."""
    first = lines.get(mutant.line, [])[:_MOST_TESTS]
    if first and not _in_a_fork(lambda: _with_mutant(mutant, first), limit):
        return False
    return _in_a_fork(lambda: _with_mutant(mutant, _files(mutant.file)), limit)


def _files(file: str) -> list[str]:
    return [str(ROOT / "tests" / name) for name in TESTS[file].split()]


def _in_a_fork(work: Callable[[], int], limit: float) -> bool:
    """Does it end with 0, and in time?"""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.setsid()
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        code = 1
        try:
            code = work()
        finally:  # a module that cannot be imported is red, too
            os._exit(code)
    end = time.monotonic() + limit
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def _with_mutant(mutant: Mutant, tests: Sequence[str]) -> int:
    _put_in(PACKAGE / mutant.file, changed_module(mutant))
    return _run(mutant.file, tests, [])


def _noting(files: Sequence[str], noted: Path) -> int:
    watch = _Watch({str(PACKAGE / file): defaultdict(set) for file in files})
    code = _run(files[0], _files(files[0]), [watch])
    found = {
        file: {
            line: sorted(tests, key=watch.seconds.__getitem__)
            for line, tests in watch.tests[str(PACKAGE / file)].items()
        }
        for file in files
    }
    noted.write_text(json.dumps(found))
    return code


class _Watch:
    """Which tests come through which lines of which files, and how long each takes."""

    def __init__(self, tests: dict[str, defaultdict[int, set[str]]]) -> None:
        self.tests = tests
        self.seconds: dict[str, float] = {}
        self._now = ""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        """From the first fixture to the last."""
        self._now, began = f"{item.path}{item.nodeid[item.nodeid.index('::') :]}", time.monotonic()
        sys.settrace(self._call)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            self.seconds[self._now] = time.monotonic() - began

    def _call(self, frame: Any, event: str, value: Any) -> Any:
        return self._line if frame.f_code.co_filename in self.tests else None

    def _line(self, frame: Any, event: str, value: Any) -> Any:
        self.tests[frame.f_code.co_filename][frame.f_lineno].add(self._now)
        return self._line


def _run(file: str, tests: Sequence[str], plugins: list[Any]) -> int:
    # Before pytest comes to it, which has a loader of its own for the packages of its plugins.
    importlib.import_module("onnxprune." + file.removesuffix(".py").replace("/", "."))
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"--rootdir={ROOT}"]
    return int(pytest.main([*options, *tests], plugins=plugins))


def _put_in(path: Path, tree: Any) -> None:
    """Have the import of a file give the changed module."""
    code = compile(tree, str(path), "exec")
    ordinary = importlib.machinery.SourceFileLoader.get_code

    def get_code(self: Any, name: str) -> Any:
        return code if Path(self.path).resolve() == path else ordinary(self, name)

    importlib.machinery.SourceFileLoader.get_code = get_code  # type: ignore[method-assign, assignment]


def page(trial: Trial, every_one: int, arguments: Sequence[str]) -> str:
    """What survives, in Markdown."""
    git = ["git", "describe", "--always", "--dirty"]
    revision = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    dead, tried = len(trial.tried) - len(trial.survivors), len(trial.tried)
    families = defaultdict(lambda: [0, 0])
    for mutant in trial.tried:
        families[mutant.file.rpartition("/")[0]][0] += 1
        families[mutant.file.rpartition("/")[0]][1] += mutant not in trial.survivors
    return "\n".join(
        [
            "# Mutants",
            "",
            f"`python -m tests.mutants {' '.join(arguments)}` at {revision}: {dead} of {tried} die, {trial.share:.1%}. "
            f"There are {every_one} that are not listed as equivalent in tests/mutants.py; {trial.left} of those drawn "
            "were not begun in time.",
            "",
            "| folder | tried | die |",
            "|---|---|---|",
            *(f"| {name} | {found} | {died} |" for name, (found, died) in sorted(families.items())),
            "",
            "Survivors:",
            "",
            *(f"- {m.file}:{m.line}: `{m.before}` as `{m.after}`" for m in trial.survivors),
            "",
        ]
    )
