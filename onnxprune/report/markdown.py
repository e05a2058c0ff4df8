"""A report as Markdown for pull requests: the cards as one table, then the sections; long tables fold away."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from typing import Any

from onnxprune.report.page import Cell, Section, Table
from onnxprune.report.pages import Origin, page_of

# Longer tables fold away; GitHub cuts comments off at 65,536 characters.
_ROWS_OPEN, _ROWS_SHOWN = 12, 100


def markdown(document: Mapping[str, Any], origin: Origin) -> str:
    """The report of a document that a command prints with `--json`."""
    page = page_of(document)
    lines = [f"### {escape(page.title)}", "", escape(page.lead), ""]
    lines += [f"**{escape(page.alert)}**", ""] if page.alert else []
    if page.cards:
        lines += ["| | | |", "|---|--:|---|"]
        lines += [f"| {escape(card.label)} | **{escape(card.value)}** | {escape(card.detail)} |" for card in page.cards]
        lines.append("")
    lines += [f"> {escape(note)}\n" for note in page.notes]
    for section in page.sections:
        lines += _section(section)
    versions = ", ".join(f"{escape(package)} {escape(number)}" for package, number in origin.versions.items())
    seed = "" if origin.seed is None else f"; seed {origin.seed}"
    return "\n".join([*lines, f"`{_code(origin.command)}`", "", f"{versions}{seed}", ""])


def _section(section: Section) -> Iterator[str]:
    tables = [table for table in section.tables if table.rows]
    if not tables:
        return
    yield from (f"#### {escape(section.title)}", "")
    for table in tables:
        if section.folded or table.folded or len(table.rows) > _ROWS_OPEN:
            yield from ("<details>", f"<summary>{html.escape(table.caption)}</summary>", "")
            yield from (*_table(table), "", "</details>", "")
        else:
            yield from (escape(table.caption), "", *_table(table), "")


def _table(table: Table) -> Iterator[str]:
    yield f"| {' | '.join(escape(column.lstrip('>~')) for column in table.columns)} |"
    yield f"|{'|'.join('--:' if column.startswith('>') else '---' for column in table.columns)}|"
    for row in table.rows[:_ROWS_SHOWN]:
        yield f"| {' | '.join(escape(_text(cell)) for cell in row)} |"
    if len(table.rows) > _ROWS_SHOWN:
        yield f"\n{len(table.rows) - _ROWS_SHOWN:,} more rows: see the report, or --json."


def _text(cell: Cell) -> str:
    return cell if isinstance(cell, str) else cell.text


def escape(text: str) -> str:
    """Text in Markdown: names come from files, and must not become links, images, mentions or columns."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{character}" if character in r"\`*_[]|~!@#" else character for character in escaped)


def _code(text: str) -> str:
    return " ".join(text.split()).replace("`", "'")
