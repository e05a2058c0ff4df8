"""Write the parts of the documentation that follow from the code: the command reference, the pages on criteria and
passes, the table of budgets, the pictures.

python docs/generate.py            # write them
python docs/generate.py --check    # exit 1 if what is committed is not what would be written
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
from pictures import pictures
from site_hooks import repository

from onnxprune import passes
from onnxprune.cli import main as command_line
from onnxprune.evaluation.gate.budgets.base import BUDGETS
from onnxprune.passes.base import CLEAN_UPS
from onnxprune.steps import recover
from onnxprune.steps.base import steps
from onnxprune.steps.prune.criteria.base import Criterion, criteria
from onnxprune.steps.recover.base import METHODS
from onnxprune.steps.sparsify.base import ALLOCATIONS, WEIGHT_CRITERIA
from onnxprune.steps.train.method import PENALTIES, TRAINING_METHODS, TrainingMethod
from onnxprune.support.options import options_of

ROOT = Path(__file__).resolve().parent.parent


def cli_reference() -> str:
    """The help of every command, as Markdown."""
    lines = ["# Commands", "", "Written by `python docs/generate.py` from the code.", ""]
    root = click.Context(command_line, info_name="onnxprune", terminal_width=100, help_option_names=["-h", "--help"])
    contexts = [root]
    for name in command_line.list_commands(root):
        command = command_line.get_command(root, name)
        assert command is not None
        contexts.append(
            click.Context(command, parent=root, info_name=name, terminal_width=100, help_option_names=["-h", "--help"])
        )
    for context in contexts:
        lines += [f"## {context.command_path}", "", "```text", context.get_help().rstrip(), "```", ""]
    return "\n".join(lines)


def criteria_page() -> str:
    """The page on criteria, with the list of them between its two marks."""
    rows = ["| criterion | needs | score | cost | source |", "|---|---|---|---|---|"]
    for family, members in families().items():
        for found in members:
            name = f"[`{found.name}`](criteria/{family}.md#{found.name})" + (
                " (comparable)" if found.comparable else ""
            )
            rows.append(row(name, ", ".join(found.needs) or "nothing", found.summary, found.cost, found.source))
    return between("criteria.md", "criteria", rows)


def row(*cells: str) -> str:
    """A row of a table."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def gate_page() -> str:
    """The page on the gate, with the table of budgets between its two marks, and the address of the repository."""
    rows = ["| option | what is measured | written as |", "|---|---|---|"]
    for name in BUDGETS:
        found = BUDGETS[name]
        if is_ours(found.check):
            rows.append(row(f"`--{name}`", found.summary.rstrip("."), f"`{found.written}`"))
    page = re.sub(r"repo: https?://\S+/onnxprune\b", f"repo: {repository()}", between("gate.md", "budgets", rows))
    return re.sub(r"uses: \S+/onnxprune@", f"uses: {repository().removeprefix('https://github.com/')}@", page)


def is_ours(function: object) -> bool:
    """An installed plug-in has its own documentation."""
    return str(getattr(function, "__module__", "")).startswith("onnxprune.")


def between(page: str, mark: str, lines: list[str]) -> str:
    """A page with these lines between its marks `<!-- mark -->` and `<!-- end of mark -->`."""
    return between_text((ROOT / "docs" / page).read_text(), mark, lines)


def between_text(text: str, mark: str, lines: list[str]) -> str:
    """A text with these lines between its marks."""
    before, _, rest = text.partition(f"<!-- {mark} -->\n")
    _, _, after = rest.partition(f"<!-- end of {mark} -->")
    return "\n".join([f"{before}<!-- {mark} -->", *lines, f"<!-- end of {mark} -->{after}"])


def families() -> dict[str, list[Criterion]]:
    """The criteria by the file that they are in."""
    found: dict[str, list[Criterion]] = {}
    for name in criteria.names():
        score = criteria[name].score
        if is_ours(score):
            found.setdefault(score.__module__.rpartition(".")[2], []).append(criteria[name])
    return found


def as_markdown(docstring: str) -> str:
    """A docstring's words, with drawings and formulas in fences."""
    parts = re.split(r"((?:^ {4}.*\n?|^\n(?= {4}))+)", docstring.strip() + "\n", flags=re.MULTILINE)
    drawn = [
        f"```text\n{inspect.cleandoc(part)}\n```" if index % 2 else part.strip() for index, part in enumerate(parts)
    ]
    return "\n\n".join(part for part in drawn if part)


def family_page(family: str, members: list[Criterion]) -> str:
    """What the file of a family says, and its criteria."""
    module = importlib.import_module(members[0].score.__module__)
    file = module.__name__.replace(".", "/") + ".py"
    title, _, rest = (inspect.getdoc(module) or "").partition("\n\n")
    lines = [f"# {family.capitalize()}", "", " ".join(title.split()), ""]
    lines += [as_markdown(rest), ""] if rest else []
    lines += [
        f"Written by `python docs/generate.py` from [{file}](../../{file}). All criteria:",
        "[criteria.md](../criteria.md).",
        "",
        "```shell",
        f"onnxprune score model.onnx --criterion {members[0].name}{data_for(members[0])}",
        "```",
        "",
    ]
    for found in members:
        needs = ", ".join(found.needs) or "nothing"
        comparable = " Scores of different groups are on one scale." if found.comparable else ""
        lines += [f"## {found.name}", "", as_markdown(inspect.getdoc(found.score) or ""), ""]
        lines += [f"Needs: {needs}. Cost: {found.cost}.{comparable}", "", f"Source: {found.source}.", ""]
    return "\n".join(lines)


def data_for(criterion: Criterion) -> str:
    """The options that give a criterion what it needs."""
    data = " --data samples.npz --samples 64" if {"activations", "gradients"} & set(criterion.needs) else ""
    return data + (" --labels labels" if "labels" in criterion.needs else "")


def passes_page() -> str:
    """Every pass: what it does, before and after, its options."""
    lines = [
        "# Passes",
        "",
        "A pass takes a model and changes it in place. Which of them run, and in which order, is decided by",
        "`remove_units` in `onnxprune/pipeline/result.py`; in Python each can be used alone. Adding one:",
        "[extending.md](extending.md#a-pass).",
        "",
        "Written by `python docs/generate.py` from the docstrings in [passes/](../passes) and",
        "[onnxprune/steps/recover/](../onnxprune/steps/recover).",
        "",
    ]
    asked = {CLEAN_UPS[name].make: f"--clean {name}" for name in CLEAN_UPS}
    asked |= {METHODS[name].make: f"--recover {name}" for name in METHODS}
    for entry in all_passes():
        command = f", or `{asked[entry]}` on the command line" if entry in asked else ""
        lines += [f"## {entry.__name__}", "", f"`from {entry.__module__} import {entry.__name__}`{command}", ""]
        lines += [drawing(entry), ""]
        options = [found.name for found in dataclasses.fields(entry)]
        lines += [f"Fields: {', '.join(f'`{option}`' for option in options)}.", ""] if options else []
    return "\n".join(lines)


def all_passes() -> list[type]:
    """Every pass, in the order of their files: those that clean up or remove, then those that recover."""
    found = []
    for room in (passes, recover):
        for info in pkgutil.iter_modules(room.__path__):
            module = importlib.import_module(f"{room.__name__}.{info.name}")
            found += [entry for entry in vars(module).values() if is_pass(module.__name__, entry)]
    return found


def is_pass(module: str, entry: object) -> bool:
    """Is this a pass that the module defines? Its docstring shows the graph before and after."""
    mine = isinstance(entry, type) and entry.__module__ == module and not entry.__name__.startswith("_")
    return mine and dataclasses.is_dataclass(entry) and "Before:" in (entry.__doc__ or "")


def drawing(entry: type) -> str:
    """The docstring of a pass; from "Before:" to the end of its paragraph it is drawn."""
    paragraphs = (inspect.getdoc(entry) or "").split("\n\n")
    return "\n\n".join(f"```text\n{part}\n```" if part.startswith("Before:") else part for part in paragraphs)


def index_page() -> str:
    """The map, with a page per family of criteria."""
    links = [f"[{family}](criteria/{family}.md)" for family in families()]
    return between("index.md", "families", ["", f"Criteria by family: {', '.join(links)}.", ""])


def recipes_page() -> str:
    """The page on recipes, with every step and its options, and the recipes that are shipped."""
    lines: list[str] = []
    for name in steps.names():
        lines += ["", f"**{name}**: {' '.join((inspect.getdoc(steps[name]) or '').split())}", ""]
        rows = [f"| `{each.name}` | {each.declared.help} |" for each in options_of(steps[name]).values()]
        lines += ["| option | what |", "|---|---|", *rows] if rows else []
    shipped = []
    for path in sorted((ROOT / "recipes").glob("*.toml")):
        shipped.append(f"- [`{path.stem}`](../recipes/{path.name}): {recipe_head(path.read_text())}")
    page = between("recipes.md", "steps", [*lines, ""])
    return between_text(page, "shipped", ["", *shipped, ""])


def method_section(found: type[TrainingMethod], flag: str, recipes: dict[str, str]) -> list[str]:
    """What a training method does, whose it is, the recipes with it, and its options."""
    using = [stem for stem, text in recipes.items() if re.search(rf'"{found.name}[":]', text)]
    links = ", ".join(f"[`{stem}`](../recipes/{stem}.toml)" for stem in using)
    shipped = [f"Recipe: {links}."] if using else []
    rows = [row(f"`{each.name}`", f"{each.default}", each.declared.help) for each in options_of(found).values()]
    table = ["| option | default | what |", "|---|---|---|", *rows]
    return [found.summary, "", f"`{flag} {found.name}`. {found.source}.", *shipped, "", *table]


def methods_page() -> str:
    """The page on training methods and penalties, with a section for each between its two marks."""
    recipes = {path.stem: path.read_text() for path in sorted((ROOT / "recipes").glob("*.toml"))}
    lines: list[str] = []
    for registry, flag, title in (
        (TRAINING_METHODS, "--training-method", "Methods"),
        (PENALTIES, "--penalty", "Penalties"),
    ):
        lines += ["", f"## {title}"]
        for name in registry:
            found = registry[name]
            if found.__module__.startswith("onnxprune."):
                lines += ["", f"### {name}", "", *method_section(found, flag, recipes)]
    lines += ["", "## Recipes of steps", ""]
    lines.append(
        "Methods that are no part of a training, but a list of steps around it; each is a recipe that is shipped."
    )
    for stem, text in recipes.items():
        if not re.search(r"^(training_method|penalty) =", text, re.MULTILINE):
            lines += ["", f"### {stem}", "", *recipe_section(stem, text)]
    return between("methods.md", "methods", [*lines, ""])


def recipe_section(stem: str, text: str) -> list[str]:
    """What a recipe is for and whose it is, as its first lines say, and its steps in order."""
    order = ", ".join(map(step_text, tomllib.loads(text)["step"]))
    return [recipe_head(text), "", f"`--recipe {stem}`, [its file](../recipes/{stem}.toml): {order}."]


def step_text(step: dict[str, Any]) -> str:
    """`prune`, or what is repeated and how often."""
    if "steps" in step:
        return f"{step['times']} times ({', '.join(map(step_text, step['steps']))})"
    return f"`{step['step']}`"


def recipe_head(text: str) -> str:
    """The comment at the top of a recipe, as one paragraph."""
    return " ".join(line.removeprefix("# ") for line in text.partition("\n\n")[0].splitlines())


def sparsity_page() -> str:
    """The page on sparse weights, with the tables of criteria and allocations."""
    rows = ["| `--weight-criterion` | score | looks at | source |", "|---|---|---|---|"]
    for found in (WEIGHT_CRITERIA[name] for name in WEIGHT_CRITERIA):
        if is_ours(found.score):
            rows.append(row(f"`{found.name}`", found.summary, "samples" if found.on_data else "weights", found.source))
    shares = ["| `--sparsity-allocation` | sparsity of a layer |", "|---|---|"]
    for each in (ALLOCATIONS[name] for name in ALLOCATIONS):
        if is_ours(each.share):
            shares.append(row(f"`{each.name}`", each.summary))
    return between_text(between("sparsity.md", "weight criteria", rows), "sparsity allocations", shares)


def main() -> None:
    """Write or check."""
    wanted = {
        ROOT / "docs" / "cli.md": cli_reference(),
        ROOT / "docs" / "criteria.md": criteria_page(),
        ROOT / "docs" / "passes.md": passes_page(),
        ROOT / "docs" / "recipes.md": recipes_page(),
        ROOT / "docs" / "methods.md": methods_page(),
        ROOT / "docs" / "gate.md": gate_page(),
        ROOT / "docs" / "sparsity.md": sparsity_page(),
        ROOT / "docs" / "index.md": index_page(),
        **{ROOT / "docs" / "criteria" / f"{name}.md": family_page(name, found) for name, found in families().items()},
        **{ROOT / "docs" / "pictures" / f"{name}.svg": text for name, text in pictures().items()},
    }
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    left_over = [path for path in (ROOT / "docs" / "criteria").glob("*.md") if path not in wanted]
    if "--check" in sys.argv[1:]:
        if stale or left_over:
            raise SystemExit(f"out of date: {', '.join(map(str, stale + left_over))}; run: python docs/generate.py")
        return
    for path in left_over:
        path.unlink()
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_text(wanted[path])


if __name__ == "__main__":
    main()
