"""The options of a benchmark."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.support.options import check_options, option


@dataclass(frozen=True)
class BenchmarkRequest:
    """The measurements of a benchmark. Every provider is tried with every batch size and every number of threads.

    Attributes:
        providers: execution providers, by short or full names.
        batches: sizes of a dynamic first axis.
        threads: of one operator; 0 lets ONNX Runtime decide.
        input_shapes: sizes of dynamic axes, like `images:1x3x224x224`.
        batch_axes: axes of inputs along which samples lie, like `cache=1`.
        seed: of made-up inputs and of the order of runs.
    """

    rounds: int | None = option(None, "Time each model so often, instead of for --seconds.", low=1, metavar="N")
    seconds: float = option(3.0, "Seconds per model and setting.", low=0, unit="seconds", metavar="SECONDS")
    warmup: int = option(5, "Untimed runs of a new session.", low=0, metavar="N")
    profile: bool = option(False, "Also show which nodes take the time.")
    providers: tuple[str, ...] = ("cpu",)
    batches: tuple[int, ...] = (1,)
    threads: tuple[int, ...] = (1,)
    input_shapes: tuple[str, ...] = ()
    batch_axes: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        check_options(self)
