"""What the shell may offer for the value of an option. Imports its sources when the shell asks."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem


def _matching(names: list[str], incomplete: str, before: str = "") -> list[CompletionItem]:
    return [CompletionItem(before + name) for name in names if name.startswith(incomplete)]


def provider_names(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Short names of the execution providers that are installed, also behind a comma."""
    from onnxprune.runtime.providers import available, short

    before, comma, last = incomplete.rpartition(",")
    return _matching([short(provider) for provider in available()], last, before + comma)
