"""Measured values kept between runs."""

from __future__ import annotations

import json
import os
from pathlib import Path

from onnxprune.errors import UsageError
from onnxprune.support.files import staged_text

# Whether the system can be asked about the user that the process acts as.
_EFFECTIVE = os.access in os.supports_effective_ids


class Cache:
    """Values by key in a JSON file, written anew with every value: whatever happens, what is there is whole."""

    def __init__(self, folder: Path | None, name: str) -> None:
        self.values: dict[str, float] = {}
        self._file = None if folder is None else folder / f"{name}.json"
        if self._file is not None:
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(
                    f"nothing can be kept in {folder}: {error.strerror}; name another folder with --cache"
                ) from None
            self.values = _read(self._file)

    def add(self, key: str, value: float) -> None:
        """Keep a value, in the file too."""
        self.values[key] = value
        if self._file is not None:
            with staged_text(json.dumps(self.values), self._file):
                pass


def _read(file: Path) -> dict[str, float]:
    """The content of the file; nothing where there is none or it is damaged."""
    try:
        found = json.loads(file.read_text())
        return {str(key): float(value) for key, value in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def default_cache() -> Path | None:
    """`$XDG_CACHE_HOME/onnxprune`, or `~/.cache/onnxprune`; None where nothing can be kept, as in many containers."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "onnxprune"
    there = next(
        path for path in (folder, *folder.parents) if os.path.exists(path)
    )  # of what may not be looked into: no
    return folder if there.is_dir() and os.access(there, os.W_OK | os.X_OK, effective_ids=_EFFECTIVE) else None
