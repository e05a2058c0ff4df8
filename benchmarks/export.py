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
from pathlib import Path

import click
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

import export_networks
import export_zoo_networks
from export_table import HEAD, put_section, tried

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
    rows, done = [], 0
    for name in fnmatch.filter(OPEN_AXES if open_axes else NETWORKS, match):
        torch.manual_seed(0)
        dynamic = OPEN_AXES[name] if open_axes else None
        options = {"exporter": exporter, "keep_batchnorm": keep_batchnorm, "dynamic": dynamic}
        row, well = tried(name, NETWORKS[name](), **options)
        done += well
        rows.append(row)
        print(row, flush=True)
    said = f"{done} of {len(rows)} networks were exported, verified at two sizes and compressed at 0.5."
    print(said)
    if output is not None:
        named = {"--exporter": exporter, "--open-axes": open_axes, "--keep-batchnorm": keep_batchnorm}
        given = "".join(f" {name}" + ("" if at is True else f" {at}") for name, at in named.items() if at)
        lines = [f"`python benchmarks/export.py{given}`, torch {torch.__version__}. {said}", "", *HEAD, *rows]
        put_section(output, f"torch{given.replace(' --', ', ').replace('-', ' ')}", lines)


if __name__ == "__main__":
    main()
