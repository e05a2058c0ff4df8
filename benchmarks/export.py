"""Export networks of torch, verify them, and compress each at 0.5.

    python benchmarks/export.py -o benchmarks/results/export.md
    python benchmarks/export.py --match 'lstm*' --exporter torchscript
    python benchmarks/export.py --open-axes --keep-batchnorm

The networks are the hand-made families of the zoo, and others written for this purpose (export_networks.py). A network
counts as done when its file gives its outputs at two sizes, and what is left at ratio 0.5 is a smaller file that the
checker and ONNX Runtime take. The weights are random: this is about structure, not accuracy.
"""

from __future__ import annotations

import fnmatch
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

import export_networks
import export_zoo_networks
from export_table import HEAD, Made, all_tried, put_section

NETWORKS = {**export_zoo_networks.NETWORKS, **export_networks.NETWORKS}

_PICTURE, _SEQUENCE, _STEPS = "{}:0=batch,2=h,3=w", "{}:0=batch,1=length", "{}:0=batch,2=length"
# Axes beside the batch of which a network takes several sizes, with the name of the input.
OPEN_AXES: dict[str, list[str]] = {
    **{name: [_PICTURE.format("input")] for name in ("vgg", "resnet", "densenet", "mobilenet", "squeeze-excite")},
    **{
        name: [_PICTURE.format("input")]
        for name in ("shuffle", "grouped", "generator", "hm.dwsep", "hm.prelu_dilation")
    },
    **{name: [_PICTURE.format("x")] for name in ("unet", "hm.concat_features_fc", "hm.conv_split_uneven", "hm.unet")},
    **{name: [_PICTURE.format("x")] for name in ("hm.grouped_conv", "hm.groupnorm", "hm.multi_output")},
    **{name: [_PICTURE.format("x")] for name in ("hm.pixel_unshuffle", "hm.squeeze_excite")},
    **{name: [_SEQUENCE.format("ids")] for name in ("encoder", "decoder-rotary")},
    **{name: [_SEQUENCE.format("x")] for name in ("lstm", "lstm-bidirectional", "gru", "hm.gru", "hm.lstm")},
    **{name: [_SEQUENCE.format("x")] for name in ("hm.rnn_tanh", "hm.einsum_attention", "hm.glu", "hm.swiglu_chunk")},
    "hm.tied_embedding": [_SEQUENCE.format("x")],
    "nn.TransformerEncoder": [_SEQUENCE.format("src")],
    "nn.Transformer": ["source:0=batch,1=length", "target:0=batch,1=made"],
    "temporal": [_STEPS.format("input")],
    "hm.tcn": [_STEPS.format("x")],
    "hm.conv3d_ae": ["input:0=batch,2=frames,3=h,4=w"],
    "graph": ["features:0=batch,1=nodes", "adjacency:0=batch,1=nodes,2=nodes"],
    "hm.gcn_dense": ["x:0=batch,1=nodes", "adj:0=batch,1=nodes,2=nodes"],
}


def seeded(
    names: list[str], open_axes: bool, given: dict[str, Any]
) -> Iterator[tuple[str, Callable[[], Made], dict[str, Any]]]:
    """The networks by name, each made of the same random numbers whichever came before it."""
    for name in names:
        torch.manual_seed(0)
        yield name, NETWORKS[name], {**given, "dynamic": OPEN_AXES[name] if open_axes else None}


@click.command()
@click.option("--match", default="*", help="Names of networks, as a pattern.")
@click.option("--exporter", help="The only one to try.")
@click.option(
    "--open-axes", is_flag=True, help="Sizes of pictures and lengths of sequences stay open, not the batch alone."
)
@click.option("--keep-batchnorm", is_flag=True, help="Norms stay nodes.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The page to put the table into.")
def main(match: str, exporter: str | None, open_axes: bool, keep_batchnorm: bool, output: Path | None) -> None:
    """Export, verify, compress."""
    warnings.simplefilter("ignore")
    given = {"exporter": exporter, "keep_batchnorm": keep_batchnorm}
    rows, said = all_tried(seeded(fnmatch.filter(OPEN_AXES if open_axes else NETWORKS, match), open_axes, given))
    if output is not None:
        named = {"--exporter": exporter, "--open-axes": open_axes, "--keep-batchnorm": keep_batchnorm}
        words = "".join(f" {name}" + ("" if at is True else f" {at}") for name, at in named.items() if at)
        lines = [f"`python benchmarks/export.py{words}`, torch {torch.__version__}. {said}", "", *HEAD, *rows]
        put_section(output, f"torch{words.replace(' --', ', ').replace('-', ' ')}", lines)


if __name__ == "__main__":
    main()
