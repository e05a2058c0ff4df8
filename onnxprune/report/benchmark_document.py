"""A benchmark as one JSON document. Times are seconds, sizes bytes, ratios a model's over the first model's."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from math import isfinite
from typing import Any

import numpy as np

from onnxprune.evaluation.benchmark.comparison import CONFIDENCE, Comparison
from onnxprune.evaluation.benchmark.profile import Profile, movers
from onnxprune.evaluation.benchmark.suite import BenchmarkRequest, BenchmarkResult, Measured
from onnxprune.report.data import FORMAT
from onnxprune.steps.prune.alignment import RATIO, Alignment, Rounding
from onnxprune.support.versions import versions


def of_benchmark(result: BenchmarkResult, request: BenchmarkRequest) -> dict[str, Any]:
    """Everything that was found, and what is needed to find it again."""
    return {
        "format": FORMAT,
        "kind": "benchmark",
        "models": [
            {"path": path, "file_bytes": size} for path, size in zip(result.models, result.file_bytes, strict=True)
        ],
        "settings": [_setting(measured) for measured in result.measured],
        "drift": {"inputs": result.drift_inputs, "outputs": [_finite(asdict(each)) for each in result.drift]},
        "metric": [_finite(asdict(each)) for each in result.quality],
        "profile": _profiles(result.profiles),
        "notes": list(result.notes),
        "request": asdict(request),
        "confidence": CONFIDENCE,
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "system": platform.system()},
        "versions": versions(),
    }


def _setting(measured: tuple[Measured, ...]) -> dict[str, Any]:
    first = measured[0].latency
    return {
        "provider": first.setting.provider,
        "batch": first.setting.batch,
        "threads": first.setting.threads,
        "warmup": first.setting.warmup,
        "sizes": dict(first.sizes),
        "models": [_measured(each) for each in measured],
    }


def _measured(measured: Measured) -> dict[str, Any]:
    latency, memory = measured.latency, measured.memory
    on_processor = latency.processor_seconds
    return {
        "path": latency.model,
        "rounds": len(latency.seconds),
        "sessions": len(latency.load_seconds),
        "median": latency.median,
        "p90": latency.p90,
        "p99": latency.p99,
        "percentiles": np.percentile(latency.seconds, range(101)).tolist(),
        "processor_median": float(np.median(on_processor)) if on_processor else None,
        "throughput": latency.throughput,
        "load": float(np.median(latency.load_seconds)),
        "memory": None if memory is None else {"peak": memory.peak, "added": memory.added},
        "comparison": None if measured.comparison is None else _comparison(measured.comparison),
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return _finite({**asdict(comparison), "real": comparison.real, "words": comparison.words})


def _profiles(profiles: tuple[Profile, ...]) -> dict[str, Any] | None:
    """Per model its nodes and operators; per model but the first the nodes whose time changed, most first."""
    if not profiles:
        return None
    return {
        "models": [
            {
                "path": each.model,
                "run": each.run_seconds,
                "between_nodes": each.between_nodes,
                "operators": each.operators,
                "nodes": [asdict(node) for node in each.nodes],
            }
            for each in profiles
        ],
        "movers": [
            {
                "path": each.model,
                "nodes": [{**asdict(mover), "change": mover.change} for mover in movers(profiles[0], each)],
            }
            for each in profiles[1:]
        ],
    }


def _finite(entries: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN and no infinity: null represents them."""
    return {
        name: None if isinstance(value, float) and not isfinite(value) else value for name, value in entries.items()
    }


def of_alignment(found: Alignment) -> dict[str, Any]:
    """As a JSON document; times are seconds."""
    return {
        "format": FORMAT,
        "kind": "alignment",
        "model": found.model,
        "setting": asdict(found.setting),
        "ratio": RATIO,
        "steps": [_step(step) for step in found.steps],
        "best": found.best,
        "words": found.words,
    }


def _step(step: Rounding) -> Mapping[str, Any]:
    against = step.comparison
    return {
        "round_to": step.round_to,
        "parameters": step.parameters,
        "median": step.latency.median,
        "comparison": None if against is None else {**asdict(against), "real": against.real, "words": against.words},
    }
