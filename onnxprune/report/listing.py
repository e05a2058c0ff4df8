"""The members of a family, as `support.registry.Registry.listing` gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnxprune.report import terminal
from onnxprune.report.tables import TextTable

FORMAT = 1


def listing_document(family: str | None, members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Every member with its name, its summary and what else is known of it."""
    return {"format": FORMAT, "kind": "list", "family": family, "members": list(members)}


def show_listing(family: str, members: Sequence[Mapping[str, Any]]) -> None:
    """The same as a table; what else is known of a member comes in lines of their own."""
    table = TextTable(family, "")
    for member in members:
        more = [f"{name.replace('_', '-')}: {_words(value)}" for name, value in member.items() if _is_said(name, value)]
        table.add_row(member["name"], "\n".join([member["summary"], *more, *([""] if more else [])]))
    terminal.console().print(table)


def _is_said(name: str, value: Any) -> bool:
    return name not in ("name", "summary") and value not in (None, False, "", (), [])


def _words(value: Any) -> str:
    return "yes" if value is True else ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
