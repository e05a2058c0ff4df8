"""Lines go into the lines that read them, and stay the same computation."""

from __future__ import annotations

import pytest

from onnxprune.conversion.to_torch.names import of_members, of_variables
from onnxprune.conversion.to_torch.nesting import Assignment, nested, renamed


def joined(*lines: str, results: str = "y") -> list[str]:
    given = [Assignment(*line.split(" = ", 1)) for line in lines]
    return [f"{line.target} = {line.expression}" for line in nested(given, results.split())]


@pytest.mark.parametrize(
    ("lines", "due"),
    [
        (["a = f(x)", "y = g(a)"], ["y = g(f(x))"]),
        (["a = x + 1", "y = a * 2"], ["y = (x + 1) * 2"]),
        (["a = x + 1", "y = f(a, [a2])"], ["y = f(x + 1, [a2])"]),
        (["a = x + 1", "y = a[:, 0]"], ["y = (x + 1)[:, 0]"]),
        (["a = x[0]", "y = -a"], ["y = -x[0]"]),
        (["a = -x", "y = a.mean(1)"], ["y = (-x).mean(1)"]),
        (["a = f(x)", "b = g(x)", "y = a - b"], ["y = f(x) - g(x)"]),
        (["a = f(x)", "y = a - g(a)"], ["a = f(x)", "y = a - g(a)"]),  # two readers
        (["a = f(x)", "b = g(x, x)", "c = h(b)", "y = c + b + a"], ["a = f(x)", "b = g(x, x)", "y = h(b) + b + a"]),
        (["a = f(f(f(x)))", "y = f(a)"], ["a = f(f(f(x)))", "y = f(a)"]),  # too deep
        (["a = x.f().g().h()", "y = a.i()"], ["y = x.f().g().h().i()"]),
        ([f"a = f({'x' * 80})", "y = g(a)"], [f"a = f({'x' * 80})", "y = g(a)"]),  # too wide
        (["s, (h, c) = f(x)", "y = s"], ["s, _ = f(x)", "y = s"]),
        (["s, (h, c) = f(x)", "y = s + c"], ["s, (_, c) = f(x)", "y = s + c"]),
        (["a, = f(x)", "y = g(a)"], ["a, = f(x)", "y = g(a)"]),
        (["dead = f(x)", "also = g(dead)", "y = x"], ["y = x"]),
        (["a = f(x)", "y = g(a, size=a.shape)"], ["a = f(x)", "y = g(a, size=a.shape)"]),
    ],
)
def test_a_line_takes_in_what_it_alone_reads(lines: list[str], due: list[str]) -> None:
    assert joined(*lines) == due


def test_what_is_returned_keeps_its_line() -> None:
    assert joined("a = f(x)", "y = g(a)", results="a y") == ["a = f(x)", "y = g(a)"]


def test_variables_are_renamed_and_nothing_else() -> None:
    text = "relu_3.mean(relu, mean=mean[relu_3])"
    assert renamed(text, {"relu_3": "a", "mean": "b"}) == "a.mean(relu, mean=b[a])"


def test_names_that_are_taken_get_an_underscore() -> None:
    variables, members = of_variables(), of_members()
    assert [variables.new(each) for each in ("input", "Input", "class", "a/b.0", "7", "l")] == [
        "input_",
        "input__2",
        "class_",
        "a_b_0",
        "v7",
        "l_",
    ]
    assert [members.new(each) for each in ("in", "train", "state_dict", "conv", "conv", "T5")] == [
        "in_",
        "train_",
        "state_dict_",
        "conv",
        "conv_2",
        "T5",
    ]
