"""The options of a search; they import nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from onnxprune.support.options import check_options, option

_WHERE = "Where the search is kept"


def _samplers() -> Iterable[str]:
    from onnxprune.pipeline.search.samplers.base import samplers

    return samplers.names()


@dataclass(frozen=True)
class SearchOptions:
    """Options of a search: the space, the objectives, how long, and where it is kept."""

    space: Path | None = option(
        None,
        "A recipe whose options may be ranges, as TOML; by default how much to prune, by which rule, and how that is "
        "bent over the depth.",
        metavar="FILE",
    )
    minimize: tuple[str, ...] = option(
        (),
        "Make this small, see: onnxprune list objectives; macs and drop where nothing is said.",
        metavar="OBJECTIVE",
    )
    maximize: tuple[str, ...] = option((), "Make this large: accuracy, or any other metric.", metavar="OBJECTIVE")
    require: tuple[str, ...] = option(
        (), "Keep to this: drop<=0.01, macs<=0.5 (a share of the original's), size<=2MB.", metavar="LIMIT"
    )
    trials: int = option(50, "End after so many trials, those of earlier runs and other workers included.", low=1)
    minutes: float | None = option(None, "Begin no trial after so many minutes.", low=0, unit="minutes")
    sampler: str = option("tpe", "How the next trial is chosen, see: onnxprune list samplers.", choices=_samplers)
    storage: str | None = option(
        None,
        "A database for several workers: postgresql://USER@HOST/NAME, a file.journal on a network disk, or a file.db; "
        "by default study.db in the output folder.",
        metavar="URL",
        section=_WHERE,
    )
    study: str | None = option(None, "Its name there; by default the model's.", metavar="NAME", section=_WHERE)

    def __post_init__(self) -> None:
        check_options(self)
