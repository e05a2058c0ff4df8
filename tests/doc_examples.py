"""The examples in a Markdown page, found and run as a reader would, from top to bottom in one folder.

    ```shell             commands, a line each (a backslash joins lines)
    ```console           commands behind "$ ", and what they print; "..." represents any lines
    ```python            run in one namespace for the whole page
    ```python a.py       written to a.py, for the commands that follow; toml and json likewise
    ```text              neither: a picture, a grammar, a table

`model.onnx` represents the reader's model and `samples.npz` for his samples: they are copies of files in models/.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from onnxprune.cli import main
from tests.conftest import ROOT

_BLOCK = re.compile(r"^( *)```(\w*)(?: +(\S+))?\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_SHELL = re.compile(r"[|<>;&$`]")
_NUMBER = re.compile(r"\d[\d,]*\.?\d*(?:e[+-]?\d+)?")
_BARS = str.maketrans("", "", "▁▂▃▄▅▆▇█")
# What was computed on data differs a little from machine to machine: by this share, or by so much.
_SHARE, _SLACK = 0.1, 0.005

# What no test runs, and why.
SKIPPED = {
    r"pip install |python3? -m venv |\. \.venv/|git clone ": "installs: CI does that before the tests",
    r"python -m pytest": "is this suite",
    r"make |bash \.ci/run": "runs this suite",
    r"python benchmarks/": "takes minutes to hours; its results are committed",
    r"--providers cuda": "needs a GPU",
}


@dataclass(frozen=True)
class Block:
    """A fenced block; `start` and `end` are where its text lies in the page."""

    language: str
    name: str | None
    text: str
    start: int
    end: int


def blocks(page: str) -> Iterator[Block]:
    """Every fenced block of a page."""
    for found in _BLOCK.finditer(page):
        _, language, name, text = found.groups()
        yield Block(language, name, textwrap.dedent(text), found.start(4), found.end(4))


def commands(block: Block) -> list[tuple[str, str]]:
    """The commands of a block, each with what it is shown to print."""
    if block.language == "console":
        parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]
        return [(line, shown) for line, _, shown in (part.partition("\n") for part in parts)]
    lines = block.text.replace("\\\n", " ").splitlines()
    return [(line, "") for line in lines if line.strip() and not line.startswith("#")]


def why_skipped(command: str) -> str | None:
    """The reason not to run a command, if there is one."""
    return next((why for pattern, why in SKIPPED.items() if re.search(pattern, command)), None)


def prepare(folder: Path) -> None:
    """The reader's folder."""
    shutil.copytree(ROOT / "models", folder / "models", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    shutil.copy(ROOT / "models" / "digits_resnet.onnx", folder / "model.onnx")
    shutil.copy(ROOT / "models" / "digits_calibration.npz", folder / "samples.npz")


def run_page(page: str) -> str:
    """Run every example of a page in the current folder; gives the page with what its console blocks really print.

    Raises AssertionError for the first example that fails or prints something else.
    """
    namespace: dict[str, Any] = {"__name__": "__page__"}
    written, done = "", 0
    for block in blocks(page):
        assert block.language, f"a block without a language: {block.text[:60]!r}"
        text = block.text
        if block.name is not None:
            Path(block.name).write_text(text)
        elif block.language == "python":
            exec(compile(text, "<page>", "exec"), namespace)
        elif block.language in ("shell", "console"):
            text = "".join(_run_and_show(block, *command) for command in commands(block))
        else:
            assert block.language == "text", f"nothing runs a block of {block.language}"
        written += page[done : block.start] + (text if block.language == "console" else page[block.start : block.end])
        done = block.end
    return written + page[done:]


def _run_and_show(block: Block, command: str, shown: str) -> str:
    parts = [part for part in command.split(" && ") if why_skipped(part) is None]
    printed = "".join(run(part.split("  #")[0].strip()) for part in parts)
    if block.language == "console" and not os.environ.get("ONNXPRUNE_WRITE_DOCS"):
        assert agrees(shown, printed), f"$ {command}\nis shown to print\n{shown}\nbut prints\n{printed}"
    said = "\n".join(line.rstrip() for line in printed.strip("\n").splitlines())
    return f"$ {command}\n{shown if '...' in shown else said + chr(10)}"


def run(command: str) -> str:
    """What a command prints. Raises AssertionError where it ends with something else than 0."""
    tool, *args = shlex.split(command, comments=True)
    if tool == "onnxprune" and not _SHELL.search(command):
        result = CliRunner().invoke(main, args, catch_exceptions=False)
        assert result.exit_code == 0, f"$ {command}\n{result.output}"
        return str(result.output)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env={**os.environ, "PATH": path})
    assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
    return done.stdout


def agrees(shown: str, printed: str) -> bool:
    """Do the words agree, and numbers nearly? A line `...` represents any lines."""
    parts = [_words(part) for part in re.split(r"^\.\.\.$", shown, flags=re.MULTILINE)]
    words, at = _words(printed), 0
    for position, part in enumerate(parts):
        last = position == len(parts) - 1
        starts = [at] if position == 0 else [len(words) - len(part)] if last else range(at, len(words))
        fits = (start for start in starts if start >= at and _same(part, words[start : start + len(part)]))
        start = next(fits, None)
        if start is None:
            return False
        at = start + len(part)
    return at == len(words)


def _words(text: str) -> list[str]:
    return text.translate(_BARS).split()


def _same(shown: list[str], printed: list[str]) -> bool:
    if len(shown) != len(printed):
        return False
    for ours, theirs in zip(shown, printed, strict=True):
        if _NUMBER.sub("#", ours) != _NUMBER.sub("#", theirs):
            return False
        for a, b in zip(_NUMBER.findall(ours), _NUMBER.findall(theirs), strict=True):
            left, right = float(a.replace(",", "")), float(b.replace(",", ""))
            if abs(left - right) > max(_SLACK, _SHARE * max(left, right)):
                return False
    return True
