"""The pictures of the documentation, readable on light and on dark pages. `python docs/generate.py` writes them.

Expressions of dimensions are drawn as boxes, from what the analysis says about a small graph; the bars of the
README are figures of benchmarks/results/digits.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnx.parser

import onnxprune
from onnxprune.analysis.groups import Analysis
from onnxprune.dims import Atom, Concat, Dim, Product, atoms, factors, keep_mask, resolve, terms

UNIT, HEIGHT, GAP, MARGIN = 18, 26, 3, 14
# A colour per group, dark enough on white and light enough on black; what keeps its size is grey.
COLOURS = ["#3b82c4", "#d9822b", "#3a9d5d", "#a05cc0"]
FROZEN = "#8a8f98"
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#24292f}.small{font-size:11px}.box{fill:none;stroke:#57606a}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.box{stroke:#9aa4b0}}"
)

# What an exporter writes for a residual shortcut of option A (He et al. 2016, section 4.2): subsample, pad with zeros.
SHORTCUT = """
    net (float[batch, 3, 4, 4] x) => (float[batch, 2, 4, 4] y)
    <float[4, 3, 1, 1] stem, float[8, 4, 1, 1] block, float[2, 8, 1, 1] head,
     int64[8] pads = {0, 2, 0, 0, 0, 2, 0, 0}>
    { s = Conv(x, stem)  padded = Pad(s, pads)  b = Conv(s, block)  sum = Add(padded, b)  y = Conv(sum, head) }
"""
ATTENTION = """
    net (float[batch, 5, 7] x) => (float[batch, 5, 7] y)
    <float[7, 24] qkv, float[8, 7] out, int64[5] split = {0, 5, 3, 2, 4}, int64[3] merge = {0, 5, 8},
     int64 one = {1}, int64 two = {2}, int64 zero = {0}>
    {
        h = MatMul(x, qkv)  parts = Reshape(h, split)  t = Transpose<perm = [2, 0, 3, 1, 4]>(parts)
        q = Gather(t, zero)  k = Gather(t, one)  v = Gather(t, two)
        turned = Transpose<perm = [0, 1, 3, 2]>(k)  scores = MatMul(q, turned)  p = Softmax<axis = -1>(scores)
        mixed = MatMul(p, v)  back = Transpose<perm = [0, 2, 1, 3]>(mixed)  flat = Reshape(back, merge)
        y = MatMul(flat, out)
    }
"""
GROUPED = """
    net (float[batch, 3, 5, 5] x) => (float[batch, 2, 5, 5] y)
    <float[9, 3, 1, 1] a, float[6, 3, 1, 1] grouped, float[2, 6, 1, 1] head>
    { h = Conv(x, a)  g = Conv<group = 3>(h, grouped)  y = Conv(g, head) }
"""


@dataclass
class Picture:
    """Lines of SVG, and how much room they take."""

    title: str
    lines: list[str] = field(default_factory=list)
    width: float = 0
    height: float = MARGIN

    def text(self, words: str, small: bool = False) -> None:
        """A line of text below what is there."""
        self.height += 18
        kind = ' class="small"' if small else ""
        self.lines.append(f'<text x="{MARGIN}" y="{self.height - 5:g}"{kind}>{words}</text>')
        self.width = max(self.width, 2 * MARGIN + 7.2 * len(words))

    def axis(self, dim: Dim, names: dict[Atom, str], goes: dict[str, list[int]], label: str) -> None:
        """The entries of an axis as boxes, those of one group in one colour; what goes is an outline."""
        self.text(label)
        x = float(MARGIN)
        stays = keep_mask(dim, {atom: ~np.isin(np.arange(atom.size), goes.get(names[atom], [])) for atom in names})
        for entry, (number, colour, edge) in enumerate(cells(dim, names, goes)):
            x += GAP * 2 * edge
            look = f'fill="{colour}"' if stays[entry] else f'fill="none" stroke="{colour}" stroke-dasharray="3 2"'
            self.lines.append(f'<rect x="{x:g}" y="{self.height:g}" width="{UNIT}" height="{HEIGHT}" rx="3" {look}/>')
            ink = "#fff" if stays[entry] else colour
            place = f'x="{x + UNIT / 2:g}" y="{self.height + 17:g}"'
            self.lines.append(f'<text {place} class="small" text-anchor="middle" style="fill:{ink}">{number}</text>')
            x += UNIT + GAP
        self.width = max(self.width, x + MARGIN)
        self.height += HEIGHT + 8

    def svg(self) -> str:
        """The document."""
        size = f'viewBox="0 0 {self.width:g} {self.height + MARGIN:g}" width="{self.width:g}"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{self.title}">'
        return "\n".join([head, f"<style>{STYLE}</style>", *self.lines, "</svg>", ""])


def cells(dim: Dim, names: dict[Atom, str], goes: dict[str, list[int]]) -> list[tuple[int, str, bool]]:
    """Per entry of an axis: the unit that it belongs to, a colour, and whether a part begins with it.

    Of a product of several groups the one that loses units gives number and colour, else the innermost.
    """
    found: list[tuple[int, str, bool]] = []
    for part in terms(dim):
        inside = [atom for atom in factors(part) if isinstance(atom, Atom)]
        named = [atom for atom in inside if atom in names]
        shown = next((atom for atom in named if names[atom] in goes), named[-1] if named else inside[-1])
        repeats = int(np.prod([atom.size for atom in inside[inside.index(shown) + 1 :]], dtype=int))
        colour = COLOURS[list(names).index(shown) % len(COLOURS)] if shown in names else FROZEN
        for entry in range(part.size):
            starts = entry % repeats == 0 if repeats > 1 else entry % shown.size == 0
            found.append((entry // repeats % shown.size, colour, bool(found) and starts))
    return found


def formula(dim: Dim, names: dict[Atom, str]) -> str:
    """The expression in words: groups by name, what keeps its size by that."""
    dim = resolve(dim)
    if not set(atoms(dim)) & set(names):
        return str(dim.size)
    if isinstance(dim, Atom):
        return names[dim]
    if isinstance(dim, Concat):
        return f"({' + '.join(formula(part, names) for part in terms(dim))})"
    assert isinstance(dim, Product)
    return " * ".join(formula(part, names) for part in dim.factors)


def analysed(graph: str) -> Analysis:
    """The analysis of a graph in ONNX's textual syntax, with weights of ones."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{graph}')
    made = {name for node in model.graph.node for name in node.output} | {each.name for each in model.graph.initializer}
    for value in [value for value in model.graph.value_info if value.name not in made]:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), value.name))
    with TemporaryDirectory() as folder:
        onnx.save(model, path := Path(folder) / "graph.onnx")
        return onnxprune.inspect(path)


def draw(
    graph: str, title: str, named: dict[str, str], axes: dict[tuple[str, int], str], goes: dict[str, list[int]]
) -> str:
    """One picture: groups get the names of `named`, axes by tensor are said in words, `goes` units by name."""
    analysis = analysed(graph)
    names = {group.atom: named[group.id] for group in analysis.groups}
    picture = Picture(title)
    for (tensor, axis), words in axes.items():
        dim = analysis.dims[tensor][axis]
        picture.axis(dim, names, goes, f"{words} = {formula(dim, names)}")
    units = " and ".join(f"unit {unit} of {name}" for name, gone in goes.items() for unit in gone)
    picture.text(f"Outlined: what goes with {units}.", small=True)
    return picture.svg()


RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "digits.md"
# Rows of the results, and the text about each.
COMPARED = {
    "digits_resnet.onnx --criterion group-l2": "--criterion group-l2 (no data)",
    "digits_resnet.onnx --data synthetic --samples 256": "--data synthetic (made up)",
    "digits_resnet.onnx --data models/digits_calibration.npz": "--data digits_calibration.npz",
}
BAR, LABELS = 230, 250


def bars() -> str:
    """What one command leaves of the parameters and of the accuracy of models/digits_resnet.onnx."""
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in RESULTS.read_text().splitlines()]
    found = {row[0]: row for row in rows if len(row) == 5}
    before = float(next(iter(found[name] for name in COMPARED))[3].rstrip("%"))
    shown = [("models/digits_resnet.onnx", 1.0, before)]
    for command, words in COMPARED.items():
        _, parameters, _, _, after = found[command]
        shown.append((words, 1 / float(parameters.rstrip("x")), float(after.rstrip("%"))))
    picture = Picture("parameters and accuracy left by onnxprune compress")
    picture.width, picture.height = LABELS + 2 * (BAR + MARGIN) + 2 * MARGIN, MARGIN + 18
    columns = (("parameters left", COLOURS[0]), ("accuracy on images never seen", COLOURS[2]))
    for column, (title, _) in enumerate(columns):
        x = LABELS + column * (BAR + 2 * MARGIN)
        picture.lines.append(f'<text x="{x}" y="{picture.height - 8:g}" class="small">{title}</text>')
    for words, parameters, accuracy in shown:
        y = picture.height
        picture.lines.append(f'<text x="{MARGIN}" y="{y + 17:g}">{words}</text>')
        for column, (share, text) in enumerate(
            ((parameters, f"{parameters:.0%}"), (accuracy / 100, f"{accuracy:.1f}%"))
        ):
            x, long = LABELS + column * (BAR + 2 * MARGIN), round(share * (BAR - 50))
            fill = columns[column][1]
            picture.lines.append(f'<rect x="{x}" y="{y + 3:g}" width="{long}" height="18" rx="3" fill="{fill}"/>')
            picture.lines.append(f'<text x="{x + long + 6}" y="{y + 17:g}" class="small">{text}</text>')
        picture.height += HEIGHT + 2
    return picture.svg()


def pictures() -> dict[str, str]:
    """Every picture by its name."""
    return {
        "digits": bars(),
        "shortcut": draw(
            SHORTCUT,
            "channels of a residual network behind a zero-padded shortcut",
            {"stem": "a", "block": "p", "block#2": "q"},
            {("stem", 0): "filters of the first stage", ("block", 0): "of the second", ("head", 1): "read by the head"},
            {"a": [1], "q": [0]},
        ),
        "attention": draw(
            ATTENTION,
            "columns of a fused query, key and value weight",
            {"qkv:heads": "heads", "qkv:head-dim": "size"},
            {("qkv", 1): "columns of qkv", ("out", 0): "rows of out"},
            {"size": [2]},
        ),
        "grouped": draw(
            GROUPED,
            "channels of a grouped convolution",
            {"a": "groups", "a#2": "in", "grouped": "out"},
            {("a", 0): "filters in front", ("grouped", 0): "grouped filters", ("head", 1): "read by the head"},
            {"groups": [1]},
        ),
    }
