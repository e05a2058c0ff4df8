"""A report as one HTML file that needs nothing else: style, script and pictures are in it, and it loads nothing.

A Content-Security-Policy holds it to that: the one script is named by its hash, so text from a model's file that got
past the escaping could not run.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from onnxprune.errors import MissingExtraError
from onnxprune.report.page import Chart, Number, VerdictCell
from onnxprune.report.pages import Origin, page_of

if TYPE_CHECKING:
    from jinja2 import Environment


def html(document: Mapping[str, Any], origin: Origin) -> str:
    """The report of a document that a command prints with `--json`; the same document gives the same bytes.

    Raises MissingExtraError without jinja2.
    """
    environment = _environment()
    script = environment.get_template("report.js.j2").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html.j2").render(
        page=page_of(document), origin=origin, script=script, script_hash=f"sha256-{digest}"
    )


def check_installed() -> None:
    """Raises MissingExtraError where the packages that reports take are missing; for before the work."""
    _environment()


def _environment() -> Environment:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise MissingExtraError("jinja2", "report") from None
    environment = Environment(
        loader=PackageLoader("onnxprune.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.tests |= {
        "chart": lambda cell: isinstance(cell, Chart),
        "number": lambda cell: isinstance(cell, Number),
        "verdict": lambda cell: isinstance(cell, VerdictCell),
    }
    return environment
