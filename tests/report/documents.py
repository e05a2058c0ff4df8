"""Documents as commands print them, for reports: of a real cut, and of measurements with numbers made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from onnxprune.pipeline import run as pipeline
from onnxprune.report.data import of_result
from onnxprune.steps.recover.layerwise import LayerError

HOSTILE = "</script><img src=x onerror=alert(1)>"


def cut(model: Path, *, name: str = "model.onnx") -> dict[str, Any]:
    """Of a dry run, with errors as a recovery would leave them."""
    result = pipeline.compress(model, criterion="l1", ratio=0.5, recover="none")
    errors = (LayerError("conv1", 0.5, 0.1), LayerError("head", 0.25, 0.05))
    object.__setattr__(result.report, "recovery", "reconstruct")
    object.__setattr__(result.report, "errors", errors)
    document: dict[str, Any] = json.loads(json.dumps(of_result(result, Path(name), None)))
    return document


def benchmark() -> dict[str, Any]:
    """Two models at one setting, with a profile."""
    words = "1.50x faster (1.42x to 1.58x)"
    return {
        "kind": "benchmark",
        "models": [{"path": "model.onnx", "file_bytes": 4_000_000}, {"path": "small.onnx", "file_bytes": 1_000_000}],
        "settings": [
            {
                "provider": "CPUExecutionProvider",
                "batch": 1,
                "threads": 1,
                "warmup": 5,
                "sizes": {"batch": 1},
                "models": [
                    _measured("model.onnx", 0.003, None),
                    _measured("small.onnx", 0.002, {"ratio": 1 / 1.5, "real": True, "words": words}),
                ],
            }
        ],
        "drift": {
            "inputs": "made-up inputs",
            "outputs": [
                {
                    "position": 1,
                    "model": "small.onnx",
                    "output": "logits",
                    "samples": 16,
                    "cosine": 0.98,
                    "max_difference": 0.25,
                    "agreement": None,
                }
            ],
        },
        "metric": [{"model": name, "metric": "accuracy", "value": 0.9} for name in ("model.onnx", "small.onnx")],
        "profile": {
            "models": [
                {"path": name, "run": 0.004, "between_nodes": 0.001, "operators": {"Conv": 0.002}, "nodes": []}
                for name in ("model.onnx", "small.onnx")
            ],
            "movers": [
                {
                    "path": "small.onnx",
                    "nodes": [{"name": "c", "operator": "Conv", "before": 0.002, "after": None, "change": -0.002}],
                }
            ],
        },
        "notes": ["the machine was busy"],
        "request": {"batches": [1], "rounds": None, "seed": 3},
        "versions": {},
    }


def _measured(path: str, median: float, comparison: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "path": path,
        "rounds": 100,
        "sessions": 12,
        "median": median,
        "p90": 1.2 * median,
        "p99": 2 * median,
        "percentiles": [median * (0.8 + 0.004 * percent) for percent in range(101)],
        "throughput": 1 / median,
        "load": 0.01,
        "memory": {"peak": 50_000_000, "added": 3_000_000},
        "comparison": comparison,
    }


def sensitivity() -> dict[str, Any]:
    """Two groups; one point could not be found."""
    return {
        "format": 1,
        "kind": "sensitivity",
        "model": "model.onnx",
        "metric": "kl",
        "whole": 0.0,
        "recover": "none",
        "samples": 128,
        "higher_is_better": False,
        "groups": [
            {"id": "a", "kind": "channels", "units": 8, "lost": [0, 2, 4], "values": [0.0, 0.5, 2.0]},
            {"id": "b", "kind": "channels", "units": 8, "lost": [0, 2, 4], "values": [0.0, float("inf"), 0.1]},
        ],
    }


def gate() -> dict[str, Any]:
    """One budget held, one broken."""
    keys = ("budget", "status", "found", "shown", "limit", "note")
    checks = [
        ("max-size", "ok", 1000, "1,000 bytes", "at most 2,000 bytes", ""),
        ("opset", "broken", 11, "11", ">=13", "export it again"),
    ]
    models = [{"model": "model.onnx", "checks": [dict(zip(keys, check, strict=True)) for check in checks]}]
    return {"format": 1, "kind": "gate", "exit_code": 1, "models": models, "updated": None}


def alignment() -> dict[str, Any]:
    """Two roundings."""
    against = {"ratio": 0.8, "real": True, "words": "1.25x faster"}
    return {
        "kind": "alignment",
        "model": "model.onnx",
        "setting": {"provider": "CPUExecutionProvider", "batch": 1},
        "ratio": 0.35,
        "steps": [
            {"round_to": 1, "parameters": 1000, "median": 0.002, "comparison": None},
            {"round_to": 8, "parameters": 1200, "median": 0.0016, "comparison": against},
        ],
        "best": 8,
        "words": "on cpu, batch 1 use --round-to 8",
    }
