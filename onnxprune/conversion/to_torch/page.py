"""The Python file of a network: a class with its parts and its `forward`, and a function that loads its weights."""

from __future__ import annotations

from onnxprune.conversion.to_torch.format import wrapped
from onnxprune.conversion.to_torch.names import of_variables
from onnxprune.conversion.to_torch.nesting import Assignment, nested, renamed
from onnxprune.conversion.to_torch.writer import Writer
from onnxprune.model.signature import ports_in

_LOAD = '''
WEIGHTS = Path(__file__).with_name("model.safetensors")


def load(weights: str | Path = WEIGHTS) -> Net:
    """The network with its weights, for evaluation."""
    net = Net()
    net.load_state_dict(load_file(weights))
    return net.eval()
'''


def page(writer: Writer, results: list[str], called: str) -> str:
    """The text, as ruff formats it; `results` are the expressions of the outputs, `called` is the file's name."""
    body = _forward(writer, results)
    parts = [part.line for part in writer.parts.values()]
    code = "\n".join((*parts, *body))
    imports = ["import torch"] if "torch." in code else []
    imports += ["from safetensors.torch import load_file", "from torch import Tensor, nn"]
    imports += ["from torch.nn import functional as F"] if "F." in code else []
    lines = [f'"""{_plain(called)}, as a module of torch: it needs torch and safetensors, nothing else."""', ""]
    lines += ["from __future__ import annotations", "", "from pathlib import Path", "", *imports, "", ""]
    lines += ["class Net(nn.Module):", *_docstring(writer), "", "    def __init__(self) -> None:"]
    lines += ["        super().__init__()", *(line for part in parts for line in wrapped(part, 8))]
    return "\n".join((*lines, "", *body, "", _LOAD))


def _docstring(writer: Writer) -> list[str]:
    """Inputs and outputs of the ONNX file, with their types and shapes."""
    lines = ['    """The network.', ""]
    for title, values in (("Inputs", writer.graph.inputs), ("Outputs", writer.graph.outputs)):
        ports = ports_in(values)
        lines += [f"    {title}:", *(f"        {_plain(f'{port.name}: {port}')}" for port in ports)]
    return [*lines, '    """']


def _forward(writer: Writer, results: list[str]) -> list[str]:
    """The method, with the variables counted again: most of them went into the lines that read them."""
    lines = nested(writer.lines, results)
    names = of_variables()
    new: dict[str, str] = {}
    for value in writer.inputs:
        new[writer.tensor(value)] = names.new(value.name or "x")
    for old, port in zip(results, ports_in(writer.graph.outputs), strict=True):
        if old in writer.words and old not in new:
            new[old] = names.new(port.name)
    for line in lines:
        for old in line.variables:
            if old not in new:
                new[old] = names.new(writer.words[old])
    given = "Tensor" if len(results) == 1 else f"tuple[{', '.join(['Tensor'] * len(results))}]"
    arguments = "".join(f", {new[writer.tensor(value)]}: Tensor" for value in writer.inputs)
    body = [_written(line, new, typed=[line.target] == results) for line in lines]
    body.append(f"return {', '.join(renamed(result, new) for result in results)}")
    return [
        *wrapped(f"def forward(self{arguments}) -> {given}:", 4),
        *(line for each in body for line in wrapped(each, 8)),
    ]


def _written(line: Assignment, names: dict[str, str], *, typed: bool) -> str:
    """The line; what a module gives has no type for mypy, so the output of a network states it."""
    return f"{renamed(line.target, names)}{': Tensor' if typed else ''} = {renamed(line.expression, names)}"


def _plain(said: str) -> str:
    """Words of a file inside of a docstring: nothing in them ends it."""
    return "".join(letter if letter.isprintable() and letter not in '"\\' else "_" for letter in said)
