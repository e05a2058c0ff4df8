"""The options of whatever runs models to measure them: commands, steps and the gate declare them nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.support.options import check_options, option

if TYPE_CHECKING:
    import onnx_ir as ir

MEASURING, RUNNING = "Measuring", "Running"


def _metrics() -> list[str]:
    from onnxprune.evaluation.metrics import METRICS

    return METRICS.names()


def _providers() -> list[str]:
    from onnxprune.runtime.providers import available, short

    return [short(provider) for provider in available()]


@dataclass(frozen=True)
class MeasureOptions:
    """How a model is run and measured."""

    seed: int = option(0, "Seed of everything random.", low=0)
    providers: tuple[str, ...] = option(
        ("cpu",),
        "Execution providers of ONNX Runtime, by preference: cuda,cpu.",
        metavar="NAMES",
        separator=",",
        offers=_providers,
        section=RUNNING,
    )
    metric: str | None = option(
        None,
        "Metric of quality, see: onnxprune list metrics; by default accuracy with labels, else agreement or snr.",
        metavar="NAME",
        offers=_metrics,
        section=MEASURING,
    )
    threads: int = option(
        1,
        "Threads of one operator where latency is measured; 0: as ONNX Runtime likes.",
        low=0,
        high=1024,
        section=MEASURING,
    )
    latency_batch: int = option(1, "Samples at a time, where latency is measured.", low=1, section=MEASURING)
    input_shape: tuple[str, ...] = option(
        (),
        "Sizes of dynamic axes, like images:8x3x224x224; ? leaves one open.",
        metavar="NAME:SHAPE",
        section=RUNNING,
    )
    batch_axis: tuple[str, ...] = option(
        (),
        "Axis of an input along which the samples lie, like cache=1; none: all samples share it. By default by names "
        "and sizes of the axes.",
        metavar="INPUT=AXIS",
        section=RUNNING,
    )
    custom_ops: tuple[Path, ...] = option(
        (),
        "Library of operators for ONNX Runtime to load, like that of ONNX Runtime Extensions.",
        metavar="LIBRARY",
        recorded=False,
        section=RUNNING,
    )

    def __post_init__(self) -> None:
        check_options(self)

    def name_axes(self, model: ir.Model) -> None:
        """Let a model know the batch axes that were named, see `signature.name_axes`."""
        from onnxprune.model.signature import name_axes

        name_axes(model, self.batch_axis)

    def sizes(self, model: ir.Model) -> Mapping[str, int]:
        """The sizes of dynamic axes that were asked for, see `given_sizes`."""
        from onnxprune.model.signature import given_sizes, ports_of

        return given_sizes(self.input_shape, ports_of(model))
