"""Options are declared once, as fields; everything else is made from the fields."""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

from onnxprune.cli import main
from onnxprune.data.options import DataOptions
from onnxprune.errors import UsageError, WrongTypeError
from onnxprune.evaluation.benchmark.request import BenchmarkRequest
from onnxprune.evaluation.gate.request import GateRequest
from onnxprune.evaluation.options import MeasureOptions
from onnxprune.pipeline import recipe
from onnxprune.steps.base import Context, Step, steps
from onnxprune.support.options import Option, changed, check_options, find_option, option, options_of
from tests.conftest import ROOT

KINDS: list[Any] = [DataOptions, Context, *(steps[name] for name in steps.names())]
ALL: list[Any] = [*KINDS, GateRequest, BenchmarkRequest]


def declarations() -> list[tuple[type, Option]]:
    """Every option with the class that declares it; those that inherit it do not declare it again."""
    found = {}
    for kind in ALL:
        for name, each in options_of(kind).items():
            home = next(base for base in kind.__mro__ if name in inspect.get_annotations(base))
            found[home, name] = each
    return [(home, each) for (home, _), each in found.items()]


def command(name: str) -> click.Command:
    found = main.get_command(click.Context(main), name)
    assert found is not None
    return found


def test_no_option_is_declared_twice() -> None:
    assert {MeasureOptions, DataOptions, GateRequest} <= {home for home, _ in declarations()}
    for called in ("flag", "name"):
        counts = Counter(getattr(each, called) for _, each in declarations())
        assert [each for each, count in counts.items() if count > 1] == []


def test_the_code_names_an_option_where_it_is_declared_only() -> None:
    """An option that a step declares is not declared again by a command, in help texts of its own or in a table."""
    written = "\n".join(path.read_text() for path in (ROOT / "onnxprune" / "cli").rglob("*.py"))
    again = set(re.findall(r'click\.option\(\s*"--([\w-]+)"', written))
    assert not again & {each.flag for _, each in declarations()}
    room = (ROOT / "onnxprune" / "evaluation").rglob("*.py")
    assert not [path for path in room if "pydantic" in path.read_text() and path.stem != "baseline"]


def test_every_option_of_the_steps_is_one_of_compress() -> None:
    given = {parameter.name for parameter in command("compress").params}
    assert {kind for kind in KINDS if kind.__name__ not in ("Checkpoint", "Reinitialize")} == {
        DataOptions,
        *recipe.KINDS,
    }
    for kind in (DataOptions, *recipe.KINDS):
        for each in options_of(kind).values():
            assert each.flag.replace("-", "_") in given, each.flag
            assert each.declared.help.endswith("."), each.flag


def test_the_options_that_most_people_need_fit_on_a_screen() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "onnxprune", "compress", "--help"], capture_output=True, text=True, check=True
    )
    first, *sections = re.split(r"^(?=\S.*:$)", done.stdout.partition("Options:")[2], flags=re.MULTILINE)
    assert len(first.splitlines()) < 40
    assert {"--ratio", "--target", "--data", "--recover", "--output"} <= set(re.findall(r"--[a-z]+", first))
    assert len(sections) > 5


@dataclass(frozen=True)
class Sample:
    """Options of every type."""

    share: float = option(0.5, "A share.", low=0, high=1, below=True)
    count: int = option(3, "A count.", low=1)
    names: tuple[str, ...] = option((), "Names.")
    table: tuple[tuple[str, float], ...] = option((), "A table.", low=0, high=1)
    choice: str = option("a", "One of them.", choices=lambda: ("a", "b"))
    maybe: int | None = option(None, "A number, or nothing.")
    where: Path | None = option(None, "A path.")
    really: bool = option(False, "Yes or no.")

    def __post_init__(self) -> None:
        check_options(self)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({"names": "one"}, {"names": ("one",)}),
        ({"names": ["one", "two"]}, {"names": ("one", "two")}),
        ({"table": {"a": 1, "b": 0.5}}, {"table": (("a", 1.0), ("b", 0.5))}),
        ({"table": "a=0.25"}, {"table": (("a", 0.25),)}),
        ({"table": [("a", 1), ("b", 0), ("a", 0.5)]}, {"table": (("b", 0.0), ("a", 0.5))}),
        ({"where": "x"}, {"where": Path("x")}),
        ({"share": 0}, {"share": 0.0}),
    ],
)
def test_what_is_taken(given: dict[str, Any], taken: dict[str, Any]) -> None:
    made = Sample(**given)
    assert {name: getattr(made, name) for name in taken} == taken
    assert Sample(**changed(made)) == made


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"share": 1}, UsageError, r"share 1 is outside \[0, 1\): a share."),
        ({"share": float("nan")}, UsageError, "share nan is outside"),
        ({"count": 0}, UsageError, "count 0 is outside 1 or more"),
        ({"count": 2.5}, WrongTypeError, "count is a whole number, not 2.5"),
        ({"count": True}, WrongTypeError, "count is a whole number, not True"),
        ({"names": 3}, WrongTypeError, "names is a list of texts, not 3"),
        ({"table": {"a": 2}}, UsageError, r"table of 'a' 2 is outside \[0, 1\]"),
        ({"table": "a"}, UsageError, "table 'a' is not a name and a number, like heads=0.25"),
        ({"choice": "c"}, UsageError, "unknown choice 'c'"),
        ({"really": 1}, WrongTypeError, "really is true or false, not 1"),
        ({"maybe": "x"}, WrongTypeError, "maybe is a whole number, not 'x'"),
    ],
)
def test_what_is_refused(given: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        Sample(**given)


def test_an_unknown_option_gets_a_suggestion() -> None:
    with pytest.raises(UsageError, match="unknown option 'shar'; did you mean 'share'"):
        find_option(Sample, "shar")
    assert find_option(Sample, "share").name == "share"


def test_a_step_is_what_its_fields_say() -> None:
    for name in steps.names():
        kind = steps[name]
        assert issubclass(kind, Step)
        assert kind.name == name


def test_links_that_come_out_as_text_files_do_no_harm(tmp_path: Path) -> None:
    """As in a checkout on Windows: `passes` and `recipes` are found beside the package."""
    for folder in ("onnxprune", "passes", "recipes"):
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for link in ("passes", "recipes"):
        (tmp_path / "onnxprune" / link).unlink()
        (tmp_path / "onnxprune" / link).write_text(f"../{link}")
    code = (
        "import onnxprune as op, onnxprune.passes.equalize as one; from pathlib import Path; "
        "assert Path(one.__file__).is_relative_to(Path.cwd()), one.__file__; "
        "print(op.Recipe.read('iterative').steps[0].times)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "4\n", done.stderr
