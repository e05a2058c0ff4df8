"""Every example in the documentation is run, every link leads somewhere, and what follows from the code follows it.

A page that no other test runs is run here. With ONNXPRUNE_WRITE_DOCS=1 in the environment, console blocks are written
anew from what the commands print.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import click
import numpy as np
import pytest

from onnxprune.cli import main
from tests.conftest import ROOT
from tests.doc_examples import agrees, blocks, commands, prepare, run, run_page, why_skipped
from tests.test_imports import ROOMS

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BESIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "models/README.md", "examples/plugin/README.md")
LINKED = sorted([*PAGES, *(ROOT / name for name in BESIDE)])

# Pages whose examples another test runs.
COVERED = {
    "docs/extending.md": "tests/test_extending.py",
    "docs/gate.md": "tests/gate/test_docs.py",
    "docs/plugins.md": "tests/test_plugin.py",
}
# Pages whose examples need a package that the default installation does not have.
NEEDS = {
    "docs/criteria/gradients.md": "torch",
    "docs/howto/keras.md": "keras",
    "docs/howto/torch-and-keras.md": "onnxscript",
    "docs/report.md": "jinja2",
    "docs/search.md": "optuna",
    "docs/training.md": "torch",
}
# Pages that take more than a few seconds: `-m slow`.
SLOW = {
    "docs/benchmark.md",
    "docs/howto/budgets.md",
    "docs/howto/keras.md",
    "docs/howto/large-models.md",
    "docs/howto/many-models.md",
    "docs/howto/recover-accuracy.md",
    "docs/howto/torch-and-keras.md",
    "docs/quantization.md",
    "docs/recipes.md",
    "docs/report.md",
    "docs/search.md",
    "docs/sparsity.md",
    "docs/training.md",
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def runnable() -> list[object]:
    found = [path for path in PAGES if name_of(path) not in COVERED]
    return [
        pytest.param(path, id=name_of(path), marks=[pytest.mark.slow] if name_of(path) in SLOW else [])
        for path in found
    ]


@pytest.mark.parametrize("path", runnable())
def test_examples_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name_of(path) in NEEDS:
        pytest.importorskip(NEEDS[name_of(path)], reason=f"{path.name} needs it")
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name, value in {"COLUMNS": "128", "XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    page = run_page(path.read_text())
    if os.environ.get("ONNXPRUNE_WRITE_DOCS"):
        path.write_text(page)


def test_lists_name_what_exists() -> None:
    names = {name_of(path) for path in PAGES}
    assert names >= {*COVERED, *SLOW, *NEEDS}
    for page, test in COVERED.items():
        assert f'"{Path(page).name}"' in (ROOT / test).read_text(), f"{test} does not read {page}"


def test_scripts_that_are_not_run_exist() -> None:
    for path in PAGES:
        for block in blocks(path.read_text()):
            for command, _ in commands(block) if block.language in ("shell", "console") else []:
                script = re.search(r"python (benchmarks/\S+)", command)
                assert script is None or (ROOT / script[1]).is_file(), f"{name_of(path)}: {command}"


# -- commands in running text, tables and --help


ROOT_CONTEXT = click.Context(main)
COMMANDS = main.list_commands(ROOT_CONTEXT)
# Examples of --help that mean other models or machines than the ones here.
PARSED_ONLY = (
    "package.net",
    "net.",
    "layer3",
    "cuda",
    "latency=0.6",
    "eval ",
    "--space ",
    "--minutes 30",
    "--storage ",
)


def help_examples(name: str) -> list[str]:
    command = main.get_command(ROOT_CONTEXT, name)
    assert command is not None
    lines = str(command.epilog).splitlines()
    return [line.strip() for line in lines if line.startswith("  ")]


def check_usage(line: str) -> None:
    """The command exists, and so do its options; files may be left out. Raises click.UsageError or AssertionError."""
    _, name, *args = shlex.split(line.split(" > ")[0])
    command = main.get_command(ROOT_CONTEXT, name)
    assert command is not None, line
    with contextlib.suppress(click.MissingParameter):
        command.make_context(name, args)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_commands_in_running_text_can_be_called(path: Path) -> None:
    for line in re.findall(r"`(onnxprune [a-z]+ [^`\n]+)`", without_blocks(path.read_text())):
        check_usage(line)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_examples_can_be_called(name: str) -> None:
    for line in help_examples(name):
        if line.startswith("onnxprune"):
            check_usage(line)


def prepare_for_help(folder: Path) -> None:
    """The files that the examples of --help speak of."""
    prepare(folder)
    data = np.load("samples.npz")
    np.savez("samples.npz", input=data["input"], labels=data["labels"], y=data["labels"])
    shutil.copy("models/digits_test.npz", "test.npz")
    for name in ("original.onnx", "whole.onnx"):
        shutil.copy("model.onnx", name)
    Path("recipe.toml").write_text('scope = "uniform"\nratio = 0.25\n')
    run("onnxprune compress model.onnx --criterion group-l2 --ratio 0.05 --recover none --plan plan.json")
    run("onnxprune compress model.onnx --criterion group-l2 --ratio 0.05 --recover none --plan first.json -o once.onnx")
    run(
        "onnxprune compress once.onnx --criterion group-l2 --ratio 0.05 --recover none --plan second.json -o twice.onnx"
    )


def write_photos(folder: Path) -> None:
    """A grey picture of each digit, in folders by class."""
    image = pytest.importorskip("PIL.Image", reason="writes pictures")
    data = np.load("samples.npz")
    for digit in range(10):
        (folder / str(digit)).mkdir(parents=True)
        pixels = data["input"][np.flatnonzero(data["labels"] == digit)[0], 0]
        image.fromarray(np.uint8(np.interp(pixels, (pixels.min(), pixels.max()), (0, 255)))).save(
            folder / str(digit) / "0.png"
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_help_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    prepare_for_help(tmp_path)
    lines = [line for line in help_examples(name) if not any(mark in line for mark in PARSED_ONLY)]
    for folder in ("photos", "images"):
        if any(folder in line for line in lines):
            write_photos(tmp_path / folder)
    if name == "recover":  # there MODEL is the pruned one
        shutil.copy("model.pruned.onnx", "model.onnx")
    for line in lines:
        run(line)


# -- links


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def without_blocks(page: str) -> str:
    return re.sub(r"^( *)```.*?^\1```$", "", page, flags=re.DOTALL | re.MULTILINE)


def anchors(path: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", without_blocks(path.read_text()), re.MULTILINE)}


@pytest.mark.parametrize("path", LINKED, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", without_blocks(path.read_text())))
    for target in targets:
        if re.match(r"https?://|mailto:", target):
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), f"{name_of(path)}: {target}"
        assert not anchor or anchor in anchors(found), f"{name_of(path)}: no heading #{anchor} in {found.name}"


def test_every_page_is_on_the_map() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / target).resolve() for target in re.findall(r"\]\(([^)\s#]+)", index.read_text())}
    assert {path for path in PAGES if path.parent != ROOT and path != index} <= linked


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_quoted_figures_stand_in_the_results(path: Path) -> None:
    """A paragraph with a link to results quotes them, rounded."""
    for paragraph in without_blocks(path.read_text()).split("\n\n"):
        results = [path.parent / file for file in re.findall(r"\]\(([^)]*results/[^)]*\.md)\)", paragraph)]
        if paragraph.startswith("|") or not results:
            continue
        figures = re.findall(r"\d+\.\d+", "".join(file.read_text() for file in results))
        for quoted in re.findall(r"(\d+\.\d+)(?:%| times| GB)", paragraph):
            places = len(quoted.partition(".")[2])
            assert quoted in {f"{float(figure):.{places}f}" for figure in figures}, f"{name_of(path)}: {quoted}"


def test_architecture_names_every_room() -> None:
    table = (ROOT / "docs" / "architecture.md").read_text().partition("| room |")[2].partition("## ")[0]
    found = re.findall(r"`([\w/]+?)(?:\.py|/)`", table)
    named = {name.replace("/", ".") for name in found} - {"ops.traits", "onnxprune.__init__", "recipes"}
    entries = {"__init__", "__main__"}
    assert named == {room for level in ROOMS for room in level} - entries


# -- the test of the test


def test_a_wrong_example_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    good = (
        "```console\n$ echo 100 units\n100 units\n```\n\n```python a.py\nprint(1)\n```\n\n```shell\npython a.py\n```\n"
    )
    assert run_page(good) == good
    for wrong in (
        good.replace("100 units\n```", "80 units\n```"),
        good.replace("100 units\n```", "100 heads\n```"),
        good.replace("python a.py\n```", "python b.py\n```"),
        "```shell\nonnxprune compres model.onnx\n```\n",
        "```python\nraise AssertionError\n```\n",
        "```ruby\nputs 1\n```\n",
        "```\nno language\n```\n",
    ):
        with pytest.raises(AssertionError):
            run_page(wrong)


def test_agreement_of_shown_and_printed() -> None:
    assert agrees("a 100\n...\nc 3", "a 105\nb\nb\nc 3")
    assert not agrees("a 100\n...\nc 3", "a 120\nb\nc 3")
    assert not agrees("a", "a b")
    assert not agrees("", "a")


def test_what_is_skipped_is_listed() -> None:
    assert why_skipped("pip install -e '.[cpu]'") is not None
    assert why_skipped("onnxprune compress model.onnx") is None
    assert run("echo done") == "done\n"
