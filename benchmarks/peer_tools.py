"""The three tools of `peers.py`, each measured in a process of its own, and what makes a result of theirs valid."""

from __future__ import annotations

import importlib
import json
import math
import resource
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RATIO = 0.5
OPSET = 20
OURS = "onnxprune"
PEERS = {"torch-pruning": "torch_pruning", "onnxsim": "onnxsim"}
IMPORTS = {
    OURS: ("onnxprune.pipeline", "onnxruntime"),
    "torch-pruning": ("torch_pruning", "onnxscript"),
    "onnxsim": ("onnxsim", "onnx"),
}


@dataclass
class Stopwatch:
    """Wall and processor seconds since it was made."""

    wall: float = field(default_factory=time.perf_counter)
    cpu: float = field(default_factory=time.process_time)

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self.wall, time.process_time() - self.cpu


@dataclass
class Case:
    """The task of a tool: the exported original, where its result goes, inputs and the shapes of the outputs."""

    name: str
    folder: Path

    @property
    def original(self) -> Path:
        return self.folder / f"{self.name}.onnx"

    def target(self, tool: str) -> Path:
        return self.folder / f"{self.name}.{tool}.onnx"

    @property
    def inputs(self) -> Path:
        return self.folder / f"{self.name}.npz"


Step = Callable[[], Any]


def ours(case: Case) -> tuple[Step, Callable[[Any], None]]:
    from onnxprune.pipeline import run as pipeline

    return lambda: pipeline.compress(case.original, ratio=RATIO, criterion="l1"), lambda result: result.save(
        case.target(OURS)
    )


def torch_pruning(case: Case) -> tuple[Step, Callable[[Any], None]]:
    import torch
    import torch_pruning as tp
    from architectures import ARCHITECTURES
    from architectures_attention import Attention, GroupedAttention

    network, inputs = ARCHITECTURES[case.name].make()
    attentions = [module for module in network.modules() if isinstance(module, Attention)]
    rotary = any(isinstance(module, GroupedAttention) for module in attentions)

    def prune() -> torch.nn.Module:
        pruner = tp.pruner.MagnitudePruner(
            network,
            inputs,
            importance=tp.importance.MagnitudeImportance(p=1),
            pruning_ratio=RATIO,
            ignored_layers=[network.head],
            in_channel_groups={},
            out_channel_groups={},
            num_heads={layer: heads for module in attentions for layer, heads in module.projections().items()},
            prune_num_heads=True,
            head_pruning_ratio=RATIO,
            prune_head_dims=not rotary,
        )
        pruner.step()
        for module in attentions:
            heads = [pruner.num_heads[layer] for layer in module.projections()]
            module.resize(heads[0], heads[-1])
        return network

    return prune, lambda pruned: export(pruned, inputs, case.target("torch-pruning"))


def onnxsim(case: Case) -> tuple[Step, Callable[[Any], None]]:
    import onnx
    import onnxsim as sim

    def prune() -> onnx.ModelProto:
        model, _ = sim.simplify(onnx.load(case.original))
        model = sim.apply_attention_head_pruning(model, sparsity=RATIO, importance_norm="l1")
        return sim.apply_structured_pruning(model, sparsity=RATIO, importance_norm="l1")

    return prune, lambda model: onnx.save(model, case.target("onnxsim"))


def export(network: Any, inputs: tuple[Any, ...], path: Path) -> None:
    import torch

    torch.onnx.export(network, inputs, str(path), dynamo=False, opset_version=OPSET, verbose=False)


TOOLS = {OURS: ours, "torch-pruning": torch_pruning, "onnxsim": onnxsim}


def original(case: Case, repeats: int) -> dict[str, Any]:
    """Export the network itself, which the two tools for ONNX files start from."""
    import numpy as np
    from architectures import ARCHITECTURES

    network, inputs = ARCHITECTURES[case.name].make()
    seconds = []
    for _ in range(repeats):
        watch = Stopwatch()
        export(network, inputs, case.original)
        seconds.append(watch.read())
    np.savez(case.inputs, *(value.numpy() for value in inputs))
    return {"file": seconds, "parameters": parameters(case.original), "bytes": case.original.stat().st_size}


def measure(tool: str, case: Case, repeats: int) -> dict[str, Any]:
    """Prune and write `repeats` times; memory is that of the first time."""
    for module in IMPORTS[tool]:
        importlib.import_module(module)
    found: dict[str, Any] = {"prune": [], "file": [], "base": peak()}
    for _ in range(repeats):
        prune, write = TOOLS[tool](case)
        watch = Stopwatch()
        result = prune()
        found["prune"].append(watch.read())
        write(result)
        found["file"].append(watch.read())
        found.setdefault("peak", peak())
        del prune, write, result
    path = case.target(tool)
    found["parameters"] = parameters(path)
    found["invalid"], found["note"] = validate(path, case)
    return found


def peak() -> int:
    """The most memory this process has had, in bytes.

    Linux counts into `ru_maxrss` what the parent had before the new program was loaded, so its own record comes first.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def parameters(path: Path) -> int:
    """Elements of all floating-point weights of a file, however they are stored."""
    import onnx

    floating = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    graph = onnx.load(path).graph
    constants = [a.t for node in graph.node if node.op_type == "Constant" for a in node.attribute if a.name == "value"]
    sizes = [math.prod(tensor.dims) for tensor in (*graph.initializer, *constants) if tensor.data_type in floating]
    return sum(size for size in sizes if size > 1)


def validate(path: Path, case: Case) -> tuple[str, str]:
    """Why the file is not valid, or nothing; and what had to be done to make it so."""
    import onnx

    error = why_invalid(path, case)
    if not error:
        return "", ""
    model = onnx.load(path)
    del model.graph.value_info[:]
    onnx.save(model, path)
    if why_invalid(path, case):
        return error, ""
    return "", "fails the checker as written, with stale intermediate shapes; counted as valid without them"


def why_invalid(path: Path, case: Case) -> str:
    import numpy as np
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
        with np.load(case.inputs) as stored:
            feed = list(stored.values())
        expected, got = outputs(case.original, feed), outputs(path, feed)
    except Exception as error:
        return one_line(error)
    if [value.shape for value in got] != [value.shape for value in expected]:
        return f"output shapes {[value.shape for value in got]} are not {[value.shape for value in expected]}"
    return "" if all(np.isfinite(value).all() for value in got) else "outputs are not finite"


def outputs(path: Path, feed: list[Any]) -> list[Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {value.name: data for value, data in zip(session.get_inputs(), feed, strict=True)})


def one_line(error: BaseException) -> str:
    """An error in one line; one without words is shown by the code that raised it, and where."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    text = str(error).strip().replace("\n", " ")
    if len(text) < 50:
        text = f"{text + ': ' if text else ''}`{frame.line}` ({Path(frame.filename).name}:{frame.lineno})"
    return f"{type(error).__name__}: {text}"[:240]


def worker(tool: str, case: Case, repeats: int) -> None:
    """Measure, and put the figures on standard output as one line of JSON."""
    warnings.filterwarnings("ignore")
    try:
        found = original(case, repeats) if tool == "original" else measure(tool, case, repeats)
    except Exception as error:
        traceback.print_exc()
        found = {"error": one_line(error)}
    print(json.dumps(found), flush=True)
