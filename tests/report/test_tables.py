"""Tables at any width: no name is dropped, no number or unit is cut."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.text import Text

from onnxprune.report.tables import TextTable

TIMES = (("digits_resnet.onnx", "158 us", "9.44 ms", "13.5 MB"), ("s.onnx", "171 us", "19.4 ms", "117 kB"))
REMARK = "on 170 samples kept apart"


def lines(table: TextTable, width: int) -> list[str]:
    out = Console(file=io.StringIO(), width=width, markup=False, emoji=False, highlight=False)
    with out.capture() as captured:
        out.print(table)
    return captured.get().splitlines()


def times(*remark: str) -> TextTable:
    table = TextTable("model", ">median", ">p90", ">memory", *remark)
    for row in TIMES:
        table.add_row(*row, *(REMARK for _ in remark))
    return table


@pytest.mark.parametrize("width", [30, 36, 40, 44, 50, 60, 80, 160])
def test_every_cell_is_whole_at_every_width(width: int) -> None:
    found = lines(times("remark"), width)
    assert max(map(len, found)) <= width
    text = " ".join(" ".join(found).split())
    for row in TIMES:
        for cell in row:
            assert cell in text
    assert text.count("samples") == 2


def test_columns_line_up_where_they_fit() -> None:
    assert lines(times(), 60) == [
        "model               median      p90   memory",
        "digits_resnet.onnx  158 us  9.44 ms  13.5 MB",
        "s.onnx              171 us  19.4 ms   117 kB",
    ]


def test_the_last_column_goes_under_the_row() -> None:
    found = lines(times("remark"), 50)
    assert found[1:3] == ["digits_resnet.onnx  158 us  9.44 ms  13.5 MB", f"  remark: {REMARK}"]


def test_a_row_becomes_a_list_where_numbers_do_not_fit() -> None:
    assert lines(times(), 40) == [
        "digits_resnet.onnx",
        "  median: 158 us  p90: 9.44 ms",
        "  memory: 13.5 MB",
        "s.onnx",
        "  median: 171 us  p90: 19.4 ms",
        "  memory: 117 kB",
    ]


def test_a_long_name_has_a_line_of_its_own_and_the_others_stay_beside_their_numbers() -> None:
    table = TextTable("group", "kind", ">units")
    table.add_row("n" * 145, "channels", "64")
    table.add_row("conv", "neurons", "1,000")
    found = lines(table, 160)
    assert found[1] == "n" * 145
    assert found[2].split() == ["channels", "64"]
    assert found[3].split() == ["conv", "neurons", "1,000"]
    assert found[2].index("channels") == found[3].index("neurons")
    narrow = lines(table, 60)
    assert "".join(narrow).count("n" * 60) >= 2
    assert "conv" in narrow[-1]


def test_headers_wrap_between_words() -> None:
    table = TextTable("model", ">samples", ">max difference", ">same arg-max")
    table.add_row("s.onnx", "512", "2.54", "100.00%")
    assert lines(table, 40)[:2] == [
        "model   samples        max         same",
        "                 difference      arg-max",
    ]


def test_text_wraps_between_words() -> None:
    table = TextTable("", "", title="a title of so many words that it wraps")
    table.add_row("name", "a summary that is longer than the line\nneeds: data")
    assert lines(table, 24) == [
        "a title of so many words",
        "that it wraps",
        "name  a summary that is",
        "      longer than the",
        "      line",
        "      needs: data",
    ]


def test_blanks_of_a_picture_and_styles_stay() -> None:
    table = TextTable("group", ">spread")
    table.add_row("a", Text("█  ▃  "), style="bold red")
    found = lines(table, 40)
    assert found[1].rstrip() == "a      █  ▃"
    out = Console(file=io.StringIO(), width=40, force_terminal=True, color_system="standard")
    with out.capture() as captured:
        out.print(table)
    assert "\x1b[1;31ma" in captured.get()
