"""onnx_ir without sympy, and sympy for everybody who asks for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from onnxprune.support import lazy
from tests.conftest import modules_after

ARITHMETIC = "str(onnx_ir.SymbolicDim('n') + 1) == 'n + 1' and onnx_ir.SymbolicDim('max(n, 3)').evaluate({'n': 5}) == 5"


def test_onnx_ir_loads_without_sympy() -> None:
    assert "sympy" not in (loaded := modules_after("import onnxprune, onnx_ir"))
    assert "onnx_ir" in loaded
    assert "sympy" in modules_after("import onnx_ir")  # else this file is of no use any more


@pytest.mark.parametrize(
    "code",
    [
        f"import onnx_ir; assert {ARITHMETIC}",
        f"import onnx_ir, sympy; assert {ARITHMETIC}",
        f"import sympy; sympy.Expr; import onnx_ir; assert {ARITHMETIC}",
        f"import sympy.abc, onnx_ir; assert {ARITHMETIC}",
        "import onnx_ir, sympy; assert sympy is sys.modules['sympy']; assert type(sympy) is type(sys)",
        "import onnx_ir, sympy.core; from sympy import Expr; assert sympy.core is sys.modules['sympy.core']",
        "import onnx_ir, sympy; assert isinstance(onnx_ir.SymbolicDim('n')._expr, sympy.Expr)",
        "import onnx_ir, sympy; assert onnx_ir.SymbolicDim(sympy.Symbol('n')).value == 'n'",
        "import onnx_ir.passes.common, pickle; assert pickle.loads(pickle.dumps(onnx_ir.DataType.FLOAT)) == 1",
        "import importlib, onnx_ir; importlib.reload(onnx_ir)",
    ],
)
def test_sympy_is_there_for_who_asks(code: str) -> None:
    assert {"onnx_ir", "onnxprune"} <= modules_after(f"import onnxprune; {code}")


def test_threads_may_ask_at_the_same_time() -> None:
    modules_after(
        f"""
import threading
import onnxprune, onnx_ir
failed, ready = [], threading.Barrier(8)
def work():
    ready.wait()
    try:
        assert {ARITHMETIC}
    except BaseException as error:
        failed.append(error)
threads = [threading.Thread(target=work) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert not failed, failed
"""
    )


def test_a_stand_in_that_is_asked_while_it_is_there_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a version of onnx_ir that needs sympy at its top loads as it does without us."""
    (tmp_path / "costly_package.py").write_text("class Base: pass")
    (tmp_path / "its_user.py").write_text("import costly_package\nclass Derived(costly_package.Base): pass")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(lazy, "_PUT_OFF", ("costly_package",))
    with lazy._stand_ins():
        assert isinstance(sys.modules["costly_package"], lazy._StandIn)
        import its_user  # type: ignore[import-not-found]
    import costly_package  # type: ignore[import-not-found]

    assert its_user.Derived.__mro__[1] is costly_package.Base
    assert not isinstance(costly_package, lazy._StandIn)
