"""Compress several models: which they are, where each result goes, and the job that is done for each in its process."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxprune.errors import UsageError
from onnxprune.support.progress import Counted, Progress, parts

_PATTERN = "*?["


@dataclass(frozen=True)
class Named:
    """The models that the command line names, and where results go.

    Attributes:
        models: the models to compress.
        output: where results go, None where nothing says.
        several: there may be more than one model, so `output` is a folder.
    """

    models: tuple[Path, ...]
    output: Path | None
    several: bool


def named(paths: Sequence[Path], output: Path | None) -> Named:
    """The models and the output of `MODEL... [OUTPUT]`, patterns like '*.onnx' written out.

    With `output`, all paths are models; without, the last of several is the output. Of several models it is a folder.

    Raises UsageError for a pattern that matches nothing and for an output that is not a folder where one is needed.
    """
    given = output
    if given is None and len(paths) > 1 and not _is_pattern(paths[-1]):
        *paths, output = paths
    models = list(dict.fromkeys(model for path in paths for model in _matched(path)))
    several = len(models) > 1 or any(map(_is_pattern, paths))
    if several and output is not None and (output.is_file() or output.suffix):
        if given is not None and len(paths) == 2:
            raise UsageError(f"-o {given} and {paths[-1]} both say where to write; drop one, or name a folder for both")
        raise UsageError(f"{output} is not a folder, and several models are to be compressed; name one: -o small/")
    return Named(tuple(models), output, several)


def named_pair(paths: Sequence[Path], output: Path | None) -> Named:
    """The two models and the folder of `ENCODER DECODER --tie OUT=IN`; None: beside them.

    Raises UsageError for more models or fewer, and for an output that is not a folder.
    """
    if len(paths) != 2:
        raise UsageError(f"--tie takes two models, the first of which gives what the second takes, not {len(paths)}")
    if output is not None and (output.is_file() or output.suffix):
        raise UsageError(f"{output} is not a folder, and two models are to be written; name one: -o small/")
    return Named(tuple(paths), output, several=False)


def all_of(paths: Sequence[Path]) -> Path:
    """Several paths in words, where messages call a model by its path."""
    return Path(" and ".join(map(str, paths)))


def _is_pattern(path: Path) -> bool:
    return any(letter in str(path) for letter in _PATTERN) and not path.exists()


def _matched(path: Path) -> Iterator[Path]:
    if not _is_pattern(path):
        yield path
        return
    found = sorted(glob.glob(str(path), recursive=True))
    if not found:
        raise UsageError(f"no file matches {path}")
    yield from map(Path, found)


def targets(models: Sequence[Path], folder: Path) -> list[Path]:
    """Where each model goes in a folder: by its name; where two share one, in the folders in which they lie.

    Raises UsageError where that is the same for two of them.
    """
    from onnxprune.pipeline.result import output_path

    names = [output_path(model, None).name for model in models]
    if len(set(names)) < len(names):
        root = os.path.commonpath([model.absolute().parent for model in models])
        names = [
            str(model.absolute().parent.relative_to(root) / name) for model, name in zip(models, names, strict=True)
        ]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two of the models would be written to {folder / name}; compress them one by one")
    return [folder / name for name in names]


@dataclass(frozen=True)
class Job:
    """A model to compress; it can be sent to a process.

    Attributes:
        model: the file.
        target: where the result goes; None: nowhere.
        recipe: the steps.
        samples: `data`, `calibration` and `evaluation`, as options.
        settings: of the context.
    """

    model: Path
    target: Path | None
    recipe: Any
    samples: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def compress_one(job: Job, progress: Progress) -> dict[str, Any]:
    """Compress a model, write it, and give the document of the result."""
    from onnxprune.pipeline.run import run
    from onnxprune.report.data import of_result
    from onnxprune.support.files import check_targets

    if job.target is not None:
        job.target.parent.mkdir(parents=True, exist_ok=True)
        check_targets([job.model], job.target)
    working, writing = parts(progress, [20, 1])
    result = run(job.recipe, job.model, progress=working, **job.samples, **job.settings)
    if job.target is not None:
        result.save(job.target, progress=writing)
    return of_result(result, job.model, job.target)


def compress_each(jobs: Sequence[Job], at_once: int, progress: Progress) -> tuple[dict[str, Any], bool]:
    """Compress every model in a process of its own; what fails stops no other.

    Returns the document of all, and whether it was interrupted: then the models that were not reached are said to be.
    """
    from onnxprune.report.data import of_results
    from onnxprune.support.pieces import Failure, work_apart

    found: dict[int, Any] = {}

    def tell(number: int, said: str) -> None:
        progress(Counted(f"{jobs[number].model.name}: {said}", len(found), len(jobs)))

    interrupted = False
    try:
        for number, outcome in work_apart(compress_one, jobs, at_once, tell):
            found[number] = outcome
            tell(number, "failed" if isinstance(outcome, Failure) else "done")
    except KeyboardInterrupt:
        interrupted = True
    ends = [found.get(number, Failure("interrupted")) for number in range(len(jobs))]
    return of_results([(str(job.model), end) for job, end in zip(jobs, ends, strict=True)]), interrupted
