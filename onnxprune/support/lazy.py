"""sympy is imported when somebody computes with symbolic sizes, and not by every run.

onnx_ir imports sympy at its top, which takes longer than all else that a run imports together, for arithmetic on sizes
like `2*batch` that nothing here asks for. While onnx_ir loads, `import sympy` inside it yields a substitute, which
imports the real one as soon as an attribute is read. The substitute is known to onnx_ir only: it leaves `sys.modules`
when onnx_ir is loaded, so everybody else gets sympy itself. `importlib.util.LazyLoader` would stay there for all, and
two threads that use it at the same time break it before Python 3.12.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

# The second reads attributes of the first at its top, and is itself used for such arithmetic only.
_PUT_OFF = ("sympy", "onnx_ir._symbolic_shapes")


def put_off_sympy() -> None:
    """From now on, onnx_ir loads without sympy; nothing happens where one of them is loaded already."""
    if "onnx_ir" not in sys.modules and "sympy" not in sys.modules:
        sys.meta_path.insert(0, _OnnxIr())


class _OnnxIr:
    """Finds onnx_ir as Python does, and has it loaded with substitutes in place; asked by `import` for every module."""

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        """Of onnx_ir, once; None leaves a module to the other finders."""
        if name != "onnx_ir":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                with _stand_ins():
                    load(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


@contextmanager
def _stand_ins() -> Iterator[None]:
    """For the length of the block, importing one of _PUT_OFF yields a substitute unless it is there already."""
    put = [_StandIn(name) for name in _PUT_OFF if name not in sys.modules]
    sys.modules.update({each.__name__: each for each in put})
    try:
        yield
    finally:
        for each in put:
            each.leave()


class _StandIn(ModuleType):
    """Has the attributes of the module of its name, which it imports when the first is read."""

    def leave(self) -> None:
        """Make room for the real module."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]

    def __getattr__(self, name: str) -> object:
        self.leave()
        return getattr(import_module(self.__name__), name)
