"""module:function, as users of ONNX's tools write it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from onnxprune.errors import DataError
from onnxprune.model.signature import Port
from tests.data.harness import FIXED, ROWS, assert_same_again, gathered, labels_of, load, sizes

Module = Callable[[str], str]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Module:
    """`module(code)` writes a module to the current folder, one of its own, and gives its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    name = f"feeds_{abs(hash(str(tmp_path)))}"

    def write(code: str) -> str:
        (tmp_path / f"{name}.py").write_text(f"import numpy as np\n{code}")
        return name

    return write


def test_dictionaries_are_batches(module: Module) -> None:
    name = module("def feed():\n    for n in (3, 1, 2): yield {'x': np.full((n, 3), n, 'f'), 'more': 1}")
    data = load(f"{name}:feed", ROWS, batch=2)
    assert sizes(data) == [3, 1, 2]
    assert set(next(data.batches()).feed) == {"x"}
    assert not data.labelled
    assert sizes(load(f"{name}:feed", ROWS, samples=5)) == [3, 1, 1]
    assert_same_again(data)


def test_pairs_have_labels(module: Module) -> None:
    name = module("def feed():\n    return [({'x': np.ones((2, 3))}, [0, 1]), ({'x': np.ones((1, 3))}, 2)]")
    data = load(f"{name}:feed", ROWS)
    assert data.labelled
    assert labels_of(data).tolist() == [0, 1, 2]


def test_the_reader_of_onnx_runtime(module: Module) -> None:
    name = module("""
class Reader:
    def __init__(self):
        self.left = [{"x": np.full((1, 3), n)} for n in (2.0, 1.0)]
    def get_next(self):
        return self.left.pop() if self.left else None
""")
    data = load(f"{name}:Reader", ROWS)
    assert gathered(data)[:, 0].tolist() == [1, 2]
    assert_same_again(data)


def test_inputs_whose_first_axis_is_something_else(module: Module) -> None:
    state = Port("state", "tensor(float)", (2, "batch", 3))
    name = module("def feed():\n    for _ in range(3): yield {'x': np.ones((4, 3)), 'state': np.ones((2, 4, 3))}")
    data = load(f"{name}:feed", FIXED, state, samples=9)
    assert [batch.feed["state"].shape for batch in data.batches()] == [(2, 4, 3)] * 2


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def feed():\n    return 3", "cannot be called for data: TypeError"),
        ("def feed(path):\n    yield {}", "cannot be called for data: TypeError"),
        ("def feed():\n    yield {'x': np.ones((1, 3))}\n    raise RuntimeError('disk\\nfull')", "RuntimeError: disk"),
        ("def feed():\n    yield 'text'", r"item 0 of .* is a str; expected \{'x': array\}, an array, or a pair"),
        ("def feed():\n    yield {'y': 1, 'z': 2}", r"no array for input 'x' \(float\[batch, 3\]\); there are: y, z"),
        ("def feed():\n    yield {'x': np.ones((1, 4))}", "but the data is 1x4"),
        (
            "def feed():\n    yield {'x': np.ones((2, 3))}, [1]",
            "samples: 2 for 'x' along axis 0, 1 for 'labels' along axis 0",
        ),
        ("def feed():\n    return []", "no samples"),
        ("rows = iter([{'x': np.ones((1, 3))}])\ndef feed():\n    return rows", "no samples"),
        ("feeds = 3\nfeed = 3", "is not a function: it is a int"),
        ("def feeds(): pass", "there is nothing of that name; did you mean 'feeds'"),
        ("import nothing_of_that_name", "cannot be imported: ModuleNotFoundError"),
        ("feed = (", "cannot be imported: SyntaxError"),
    ],
)
def test_functions_that_do_not_give_data(module: Module, code: str, says: str) -> None:
    name = module(code)
    with pytest.raises(DataError, match=says) as caught:
        list(load(f"{name}:feed", ROWS).batches())
    assert "\n" not in str(caught.value)
    assert f"{name}:feed" in str(caught.value)


def test_batches_are_cut_where_the_model_fixes_their_size(module: Module) -> None:
    name = module("def feed():\n    for n in (3, 6): yield {'x': np.full((n, 3), n, 'f')}")
    assert gathered(load(f"{name}:feed", FIXED))[:, 0].tolist() == [3, 3, 3, 6, 6, 6, 6, 6]
    few = module("def few():\n    yield {'x': np.ones((3, 3))}")
    del sys.modules[name]
    with pytest.raises(DataError, match="fewer samples than the 4 that the model takes at a time"):
        load(f"{few}:few", FIXED)


def test_a_module_that_is_not_there() -> None:
    with pytest.raises(DataError, match="cannot be imported: ModuleNotFoundError"):
        load("no_such_module_here:feed", ROWS)


def test_the_example_of_the_documentation(module: Module) -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    name = module(page.split("```python my_samples.py\n")[1].split("```")[0])
    data = load(f"{name}:batches", Port("input", "tensor(float)", ("batch", 1, 8, 8)))
    assert sizes(data) == [16] * 4
    assert_same_again(data)
