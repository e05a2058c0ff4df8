"""`onnxprune completion`: what a shell needs to complete commands, options and names."""

from __future__ import annotations

import os
from pathlib import PurePath

import click

from onnxprune.cli.base import examples
from onnxprune.errors import UsageError

_INSTALL = {
    "bash": 'add to ~/.bashrc:  eval "$(onnxprune completion bash)"',
    "zsh": 'add to ~/.zshrc:  eval "$(onnxprune completion zsh)"',
    "fish": "run once:  onnxprune completion fish > ~/.config/fish/completions/onnxprune.fish",
}


@click.command(
    "completion",
    epilog=examples("onnxprune completion bash", 'eval "$(onnxprune completion zsh)"'),
)
@click.argument("shell", type=click.Choice(list(_INSTALL)), required=False)
@click.pass_context
def command(context: click.Context, shell: str | None) -> None:
    """Print the script by which SHELL completes commands, options, files and names of criteria.

    \b
    bash: add to ~/.bashrc:  eval "$(onnxprune completion bash)"
    zsh:  add to ~/.zshrc:   eval "$(onnxprune completion zsh)"
    fish: run once:          onnxprune completion fish > ~/.config/fish/completions/onnxprune.fish

    Without SHELL, for the one that $SHELL names.
    """  # noqa: D301 (a backspace is what click wants)
    from click.shell_completion import get_completion_class

    name = shell or PurePath(os.environ.get("SHELL", "")).name
    if name not in _INSTALL:
        raise UsageError(f"$SHELL is '{name}', for which there is no completion; name one: {', '.join(_INSTALL)}")
    found = get_completion_class(name)
    assert found is not None
    script = found(context.find_root().command, {}, "onnxprune", "_ONNXPRUNE_COMPLETE")
    click.echo(f"# {_INSTALL[name]}")
    # Not `source()`: that of bash starts one to look at its version, and need not be on this machine.
    click.echo(script.source_template % script.source_vars())
