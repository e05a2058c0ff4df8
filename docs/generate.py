"""Write the parts of the documentation that follow from the code: the command reference, the list of criteria, the
README's picture.

python docs/generate.py            # write them
python docs/generate.py --check    # exit 1 if what is committed is not what would be written
"""

from __future__ import annotations

import contextlib
import io
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from onnxprune.cli import main as command_line
from onnxprune.criteria.base import criteria
from onnxprune.report import terminal

ROOT = Path(__file__).resolve().parent.parent
PICTURED = "onnxprune compress digits_transformer.onnx --ratio 0.5"


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
    before, _, rest = (ROOT / "docs" / "criteria.md").read_text().partition("<!-- criteria -->\n")
    _, _, after = rest.partition("<!-- end of criteria -->")
    rows = ["| criterion | needs | score | cost | source |", "|---|---|---|---|---|"]
    for found in (criteria[name] for name in criteria.names()):
        name = f"`{found.name}`" + (" (comparable)" if found.comparable else "")
        cells = (name, ", ".join(found.needs) or "nothing", found.summary, found.cost, found.source)
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join([f"{before}<!-- criteria -->", *rows, f"<!-- end of criteria -->{after}"])


def picture() -> str:
    """What one run prints, as SVG."""
    console = Console(record=True, width=82, file=io.StringIO(), force_terminal=True, highlight=False, markup=False)
    console.print(Text(f"$ {PICTURED}", style="bold green"))
    terminal.console = lambda: console  # the command prints into the recording
    _, command, model, *options = shlex.split(PICTURED)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        shutil.copy(ROOT / "models" / model, model)
        command_line.main([command, model, *options], standalone_mode=False)
    return console.export_svg(title="onnxprune", unique_id="onnxprune")


def main() -> None:
    """Write or check."""
    wanted = {
        ROOT / "docs" / "cli.md": cli_reference(),
        ROOT / "docs" / "criteria.md": criteria_page(),
        ROOT / "docs" / "compress.svg": picture(),
    }
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv[1:]:
        if stale:
            raise SystemExit(f"out of date: {', '.join(map(str, stale))}; run: python docs/generate.py")
        return
    for path in stale:
        path.write_text(wanted[path])


if __name__ == "__main__":
    main()
