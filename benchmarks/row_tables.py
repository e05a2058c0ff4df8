"""Tables of benchmarks whose rows are printed as they are measured."""

from __future__ import annotations

import argparse
import subprocess
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

Rows = Callable[[str, int, list[str]], Iterable[str]]


def arguments(description: str, models: Iterable[str], results: Path) -> argparse.Namespace:
    """The command line: which models and rows, how many test images, and whether to write the table."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("models", nargs="*", default=list(models))
    parser.add_argument("--test", type=int, default=10_000, help="test images of CIFAR-10")
    parser.add_argument("--only", nargs="*", default=[], help="names of rows")
    parser.add_argument("--write", action="store_true", help=f"write {results.name}")
    return parser.parse_args()


def tabulate(given: argparse.Namespace, measure: Rows, title: str, head: list[str], results: Path) -> None:
    """Print the table row by row, and write it to `results` if that was asked for."""
    print("\n".join(head), flush=True)
    rows = []
    for model in given.models:
        for row in measure(model, given.test, given.only):
            print(row, flush=True)
            rows.append(row)
    if given.write:
        results.write_text("\n".join([f"# {title}", "", *head, *rows, ""]), encoding="utf-8")


def asked_of(description: str | None, names: str) -> argparse.Namespace:
    """The command line of a benchmark of whole commands: which models, under `names`, and further options of them."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(names, nargs="*", help="names; all by default")
    parser.add_argument("--options", default="", help="further options of compress")
    parser.add_argument("-o", "--output", type=Path)
    return parser.parse_args()


def put(lines: list[str], output: Path | None) -> None:
    """Write the page to a file, else print it."""
    text = "\n".join(lines) + "\n"
    if output:
        output.write_text(text)
    else:
        print(text)


def zipped(path: Path) -> int:
    """Bytes after deflate at its best."""
    return len(zlib.compress(path.read_bytes(), 9))


def revision() -> str:
    """The commit that is measured."""
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    return found.stdout.strip() or "an unknown revision"
