"""Results of an export: the document of `export --json`, and what a terminal shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnxprune.conversion.compare import shape_text
from onnxprune.conversion.export import Exported
from onnxprune.conversion.to_torch.file import TorchCode
from onnxprune.model.file import estimated_bytes
from onnxprune.model.signature import Port, ports_in
from onnxprune.report.data import FORMAT
from onnxprune.report.tables import TextTable
from onnxprune.report.terminal import console, show_notes, show_sentence
from onnxprune.support.quantities import show_bytes, show_count


def of_export(exported: Exported, source: str, output: Path) -> dict[str, Any]:
    """The file that `export` wrote; `compared` has the shapes of inputs and the largest difference of the outputs."""
    graph = exported.model.graph
    return {
        "format": FORMAT,
        "kind": "export",
        "source": source,
        "output": str(output),
        "exporter": exported.exporter,
        "opset": graph.opset_imports.get(""),
        "inputs": [_port(port) for port in ports_in(graph.inputs)],
        "outputs": [_port(port) for port in ports_in(graph.outputs)],
        "file_bytes": estimated_bytes(exported.model),
        "compared": [
            {"shapes": {name: list(shape) for name, shape in each.shapes.items()}, "difference": each.difference}
            for each in exported.checks
        ],
        "notes": list(exported.notes),
    }


def _port(port: Port) -> dict[str, Any]:
    return {"name": port.name, "type": port.type, "shape": list(port.shape)}


def show_export(exported: Exported, output: Path) -> None:
    """The inputs and outputs, how far they are from the network's, and notes."""
    graph, out = exported.model.graph, console()
    size, opset = show_bytes(estimated_bytes(exported.model)), graph.opset_imports.get("")
    show_sentence(out, f"{output}: {size}, opset {opset}, exported with {exported.exporter}")
    table = TextTable("", "name", "type")
    for said, values in (("input", graph.inputs), ("output", graph.outputs)):
        for port in ports_in(values):
            table.add_row(said, port.name, str(port))
    out.print(table)
    for each in exported.checks:
        shapes = ", ".join(f"{name} {shape_text(shape)}" for name, shape in each.shapes.items())
        if each.difference is not None:
            show_sentence(out, f"same outputs as the network at {shapes} (largest difference {each.difference:.0e})")
    show_notes(out, exported.notes)


def of_torch_code(code: TorchCode, model: Path, folder: Path) -> dict[str, Any]:
    """The file that `to-torch` wrote; `compared` has the largest difference of outputs per run beside ONNX Runtime."""
    return {
        "format": FORMAT,
        "kind": "torch-code",
        "model": str(model),
        "output": str(folder),
        "lines": len(code.text.splitlines()),
        "weights": {name: list(array.shape) for name, array in code.weights.items()},
        "compared": list(code.differences),
    }


def show_torch_code(code: TorchCode, folder: Path) -> None:
    """How long the file is, and how far its outputs are from those of ONNX Runtime."""
    count = sum(array.size for array in code.weights.values())
    out = console()
    show_sentence(out, f"{folder}: model.py of {len(code.text.splitlines())} lines, {show_count(count)} weights")
    runs = f"{len(code.differences)} runs" if len(code.differences) > 1 else "1 run"
    show_sentence(out, f"same outputs as ONNX Runtime in {runs} (largest difference {max(code.differences):.0e})")
