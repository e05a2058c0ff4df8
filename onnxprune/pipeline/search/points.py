"""The files of the front: a model and its recipe for each point, in one folder."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from onnxprune.pipeline.search.workbench import Made
from onnxprune.support.files import staged_text
from onnxprune.support.toml import to_toml

_RECIPE = ".recipe.toml"


@dataclass(frozen=True)
class Points:
    """Where the files of the front are, and how they are called: `model.012.onnx`, `model.012.recipe.toml`.

    Attributes:
        folder: it exists.
        stem: of the model's file.
    """

    folder: Path
    stem: str

    def path(self, number: int) -> Path:
        """The file of a trial."""
        return self.folder / f"{self.stem}.{number:03d}.onnx"

    def write(self, made: Made, number: int) -> Path:
        """Write the model of a trial and its recipe. Raises VerificationError for one that fails a check."""
        path = self.path(number)
        write_point(made, path)
        return path

    def keep(self, numbers: Collection[int]) -> None:
        """Remove the files of other trials than these."""
        pattern = re.compile(re.escape(self.stem) + r"\.(\d{3,})\.(onnx|onnx\.data|recipe\.toml)")
        for file in self.folder.iterdir():
            found = pattern.fullmatch(file.name)
            if found and int(found[1]) not in numbers:
                with contextlib.suppress(OSError):  # another worker was faster
                    file.unlink()


def write_point(made: Made, path: Path) -> None:
    """Write a candidate and, beside it, its recipe, which `compress --recipe` takes."""
    with staged_text(to_toml(made.recipe.document()), recipe_path(path)):
        made.result.save(path)


def recipe_path(path: Path) -> Path:
    """`small.onnx` has its recipe in `small.recipe.toml`."""
    return path.with_name(path.name.removesuffix(".onnx") + _RECIPE)
