"""Files appear whole or not at all, and never where the input is."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from onnxprune.errors import ModelError, UsageError


@contextlib.contextmanager
def staged_text(text: str, target: Path) -> Iterator[None]:
    """Write a text file beside `target` and move it into place when the block ends well; see `staged`."""
    with staged_bytes(text.encode(), target):
        yield


@contextlib.contextmanager
def staged_bytes(content: bytes, target: Path) -> Iterator[None]:
    """The same for any file."""
    check_target(target)
    with moved_into_place(target) as folder:
        (folder / target.name).write_bytes(content)
        yield


@contextlib.contextmanager
def moved_into_place(target: Path) -> Iterator[Path]:
    """A folder beside `target` whose files take their places when the block ends well; it never stays behind."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.absolute().parent))
    except OSError as error:
        raise _unwritable(target, error) from None
    try:
        yield folder
        for name in sorted(os.listdir(folder), reverse=True):  # the data file before the model that reads it
            os.replace(folder / name, target.with_name(name))
    except OSError as error:
        raise _unwritable(target, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_target(target: Path, *sources: Path) -> None:
    """Can a file be created as `target`? What is already there may be replaced if it is a file and not a source.

    Raises UsageError when it is one of `sources`, a folder or a device, or when its folder does not exist.
    """
    try:
        if target.is_dir():
            raise UsageError(f"{target} is a folder; name a file inside it")
        if target.exists() and not target.is_file():
            raise UsageError(f"{target} is not a file that can be replaced; choose another output")
        if not target.absolute().parent.is_dir():
            raise UsageError(f"the folder {target.absolute().parent} does not exist; create it first")
        if target.exists() and any(source.exists() and target.samefile(source) for source in sources):
            raise UsageError(f"{target} belongs to the input, which is never modified; choose another output")
    except OSError as error:
        raise _unwritable(target, error) from None


def _unwritable(target: Path, error: OSError) -> ModelError:
    advice = "free some space or choose" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "choose"
    return ModelError(f"cannot write {target}: {error.strerror or error}; {advice} another output")


def check_targets(sources: Sequence[str | Path], *targets: str | Path | None) -> None:
    """Can all of `targets` be written? Raises UsageError, before any work, for one that cannot or that is a source."""
    given = [Path(target) for target in targets if target is not None]
    for target in given:
        check_target(target, *map(Path, sources))
    taken: set[Path] = set()
    for target in given:
        if target.resolve() in taken:
            raise UsageError(f"{target} is named for two outputs; choose different names")
        taken.add(target.resolve())
