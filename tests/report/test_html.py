"""The HTML report: what is in it, that it is safe and always the same, and how a real browser takes it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from onnxprune.cli import main
from onnxprune.errors import MissingExtraError
from onnxprune.report.html import check_installed, html
from onnxprune.report.pages import Origin, page_of
from tests.report import documents
from tests.report.browser import Page, browser, find

pytest.importorskip("jinja2", reason="the extra `report` is not installed")

ORIGIN = Origin("onnxprune compress 'my model.onnx' --ratio 0.5", {"onnxprune": "0.1.0", "onnx": "1.18.0"}, 7)
MEASURED = (documents.benchmark, documents.sensitivity, documents.gate, documents.alignment)


@pytest.fixture(scope="module")
def cut(request: pytest.FixtureRequest) -> dict[str, Any]:
    return documents.cut(request.getfixturevalue("digits")["resnet"])


class Reader(HTMLParser):
    """Tags that were left open, and all text and attributes."""

    EMPTY = frozenset(("meta", "link", "br", "img", "path", "rect", "polyline", "polygon"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_a_cut_shows_everything(cut: dict[str, Any]) -> None:
    text = html(cut, ORIGIN)
    read = Reader(text)
    assert read.open == []
    said = " ".join(" ".join(read.words).split())
    for group in cut["groups"]:
        assert group["id"] in said
        assert f"{group['units']} → {group['kept']}" in said
    for axis in cut["frozen"]:
        assert f"{axis['tensor']}[{axis['axis']}]" in said
        assert axis["reason"] in said
    for part in ("Before and after", "Scores", "The graph by stages", "Recovery", "0.5000", ORIGIN.command, "1.18.0"):
        assert part in said
    assert "seed 7" in said
    assert f"{cut['before']['parameters']:,}" in said
    assert f"{cut['after']['macs']:,}" in said


@pytest.mark.parametrize("make", MEASURED, ids=lambda make: make.__name__)
def test_measurements(make: Any) -> None:
    read = Reader(html(make(), ORIGIN))
    assert read.open == []
    page = page_of(make())
    said = " ".join(" ".join(read.words).split())
    for card in page.cards:
        assert card.value in said
    for section in page.sections:
        assert section.title in said
        assert all(table.caption in said for table in section.tables)


def test_same_document_same_bytes(cut: dict[str, Any]) -> None:
    assert html(cut, ORIGIN) == html(cut, ORIGIN)


def test_loads_nothing(cut: dict[str, Any]) -> None:
    text = html(cut, ORIGIN)
    assert not re.search(r"(src|href)=\"(?!#|data:)", text)
    assert "@import" not in text
    assert "url(" not in text
    assert "default-src 'none'" in text


def test_names_from_a_file_cannot_become_markup(digits: dict[str, Path]) -> None:
    document = documents.cut(digits["resnet"], name=documents.HOSTILE)
    document["groups"][0]["id"] = document["scores"][0]["id"] = documents.HOSTILE
    document["stages"][0]["name"] = document["stages"][1]["name"] = documents.HOSTILE
    document["frozen"][0]["tensor"] = documents.HOSTILE
    document["notes"].append(documents.HOSTILE)
    text = html(document, Origin(documents.HOSTILE, {}, None))
    read = Reader(text)
    assert not [tag for tag, _ in read.tags if tag == "img"]
    assert sum(tag == "script" for tag, _ in read.tags) == 1


def test_tables_have_captions_and_heads(cut: dict[str, Any]) -> None:
    tags = Reader(html(cut, ORIGIN)).tags
    count = sum(tag == "table" for tag, _ in tags)
    assert count == sum(tag == "caption" for tag, _ in tags) == sum(tag == "thead" for tag, _ in tags) > 5
    assert all(found.get("scope") in ("col", "row") for tag, found in tags if tag == "th")
    targets = {found["id"] for _, found in tags if "id" in found}
    links = [found["href"] for tag, found in tags if tag == "a"]
    assert links[0] == "#content"
    assert {str(link).removeprefix("#") for link in links} <= targets


def test_an_unknown_document_is_a_bug() -> None:
    with pytest.raises(ValueError, match="no page"):
        page_of({"format": 1})


def test_without_jinja2(monkeypatch: pytest.MonkeyPatch, digits: dict[str, Path], tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"onnxprune\[report\]"):
        check_installed()
    out = tmp_path / "out.onnx"
    command = [
        "compress",
        str(digits["resnet"]),
        "--recover",
        "none",
        "--ratio",
        "0.5",
        "-o",
        str(out),
        "--report",
        str(tmp_path / "report.html"),
    ]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    assert not out.exists()  # told before the work


# -- the command line


def test_commands_write_reports(digits: dict[str, Path], tmp_path: Path) -> None:
    report, markdown, plan = tmp_path / "report.html", tmp_path / "report.md", tmp_path / "plan.json"
    model = str(digits["lstm"])
    files = ["--report", str(report), "--markdown", str(markdown)]
    command = ["compress", model, "-o", str(tmp_path / "out.onnx"), "--plan", str(plan), "--seed", "5", "-q", *files]
    command += ["--ratio", "0.5", "--recover", "none"]
    result = CliRunner().invoke(main, command)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("onnxprune: warning: the model fell apart: ")  # also with -q
    text, first = report.read_text(), markdown.read_text()
    assert f"onnxprune compress {model}" in text
    assert "<dt>seed</dt><dd>5</dd>" in text
    assert f"onnxprune compress {model}" in first
    assert CliRunner().invoke(main, command).exit_code == 0
    assert (report.read_text(), markdown.read_text()) == (text, first)
    apply = ["apply", model, str(plan), "-o", str(tmp_path / "again.onnx"), *files]
    assert CliRunner().invoke(main, apply).exit_code == 0
    assert "onnxprune apply" in report.read_text()


def test_markdown_on_standard_output(digits: dict[str, Path]) -> None:
    command = ["compress", str(digits["lstm"]), "--recover", "none", "--ratio", "0.5", "--dry-run", "--markdown", "-"]
    result = CliRunner().invoke(main, command)
    assert result.stdout.startswith("### digits\\_lstm.onnx, pruned")
    assert "dry run:" not in result.stdout  # no tables beside it
    refused = CliRunner().invoke(main, [*command, "--json"])
    assert refused.exit_code == 2
    assert "--markdown report.md" in refused.stderr


@pytest.mark.parametrize("option", ["--report", "--markdown"])
def test_a_report_never_takes_the_place_of_the_model(digits: dict[str, Path], tmp_path: Path, option: str) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(digits["lstm"].read_bytes())
    result = CliRunner().invoke(
        main, ["compress", str(model), "--recover", "none", "--ratio", "0.5", option, str(model)]
    )
    assert result.exit_code == 2
    assert model.read_bytes() == digits["lstm"].read_bytes()


# -- in a browser

EXECUTABLE = find()


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    if EXECUTABLE is None:
        pytest.skip("no Chromium is installed; set CHROMIUM to one, or install it: apt-get install chromium")
    with browser(EXECUTABLE) as found:
        yield found


@pytest.fixture(scope="module")
def files(cut: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    made = {"cut": cut, **{make.__name__: make() for make in MEASURED}}
    for name, document in made.items():
        (folder / f"{name}.html").write_text(html(document, ORIGIN))
    return {name: folder / f"{name}.html" for name in made}


@pytest.mark.parametrize("name", ["cut", *(make.__name__ for make in MEASURED)])
def test_fits_and_is_quiet(page: Page, files: dict[str, Path], tmp_path: Path, name: str) -> None:
    """At both widths and in both schemes: no overflow, no errors, nothing loaded; the scheme is the one asked for."""
    backs = set()
    for width in (1280, 390):
        for dark in (False, True):
            page.requests.clear()
            page.open(files[name], width=width, dark=dark)
            shot = tmp_path / f"{name}-{width}-{'dark' if dark else 'light'}.png"
            page.picture(shot)
            assert shot.stat().st_size > 5_000
            assert page.run("document.documentElement.scrollWidth") <= width
            assert page.run("innerWidth") == width
            assert page.errors == []
            assert [url for url in page.requests if not url.startswith(("file:", "data:,"))] == []
            backs.add((dark, page.run("getComputedStyle(document.body).backgroundColor")))
    assert len(backs) == 2


def test_keyboard(page: Page, files: dict[str, Path]) -> None:
    """The first Tab shows the skip link, Enter takes it; folded parts open; a heading sorts its table, twice."""
    page.open(files["cut"], width=1280)
    page.press("Tab")
    assert page.run("document.activeElement.className") == "skip"
    assert page.run("document.activeElement.getBoundingClientRect().left") >= 0
    page.press("Enter")
    assert page.run("location.hash") == "#content"
    page.run("document.querySelector('#frozen summary').focus()")
    page.press("Enter")
    assert page.run("document.querySelector('#frozen details').open") is True
    table = "document.querySelectorAll('#groups table')[1]"
    values = f"[...{table}.tBodies[0].rows].map(row => +row.cells[2].dataset.value)"
    for turn in ("ascending", "descending"):
        page.run(f"{table}.querySelectorAll('thead button')[2].focus()")
        page.press("Enter")
        assert page.run(f"{table}.querySelectorAll('thead th')[2].getAttribute('aria-sort')") == turn
        found = page.run(values)
        assert found == sorted(found, reverse=turn == "descending")
    reachable = "[...document.querySelectorAll('.scroll')].every(each => each.tabIndex === 0)"
    assert page.run(reachable) is True
