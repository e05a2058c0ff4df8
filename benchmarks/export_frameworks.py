"""Networks of Keras, TensorFlow, scikit-learn, transformers and timm, as files where the frameworks have them.

    python benchmarks/export_frameworks.py keras -o benchmarks/results/export.md

Each is made here with random weights, saved, exported from its file or folder, verified and compressed at 0.5, as in
export.py. Nothing is downloaded.
"""

from __future__ import annotations

import fnmatch
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from export_table import HEAD, Made, all_tried, put_section

from tests.conversion.keras_networks import KERAS

VERSIONS = {
    "keras": ("keras", "tensorflow-cpu", "tensorflow", "tf2onnx"),
    "tensorflow": ("tensorflow-cpu", "tensorflow", "tf2onnx"),
    "scikit-learn": ("scikit-learn", "skl2onnx"),
    "timm": ("timm", "torch"),
    "transformers": ("transformers", "torch"),
}


def keras_networks(folder: Path) -> Iterator[tuple[str, Callable[[], Made]]]:
    """Each as an object, as a .keras file and as a .h5 file."""

    def saved(make: Callable[[], Any], path: Path) -> Made:
        make().save(path)
        return path, None

    for name, make in KERAS.items():
        yield f"{name}, model", lambda make=make: (make(), None)
        for suffix in (".keras", ".h5"):
            yield f"{name}, {suffix}", lambda make=make, path=folder / f"net{suffix}": saved(make, path)


def tensorflow_networks(folder: Path) -> Iterator[tuple[str, Callable[[], Made]]]:
    """SavedModels of plain TensorFlow and of Keras, and TFLite files of both."""
    import tensorflow as tf

    class Plain(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.w = tf.Variable(tf.random.normal((3, 3, 3, 16), stddev=0.2))
            self.v = tf.Variable(tf.random.normal((16, 5)))

        @tf.function(input_signature=[tf.TensorSpec((None, 16, 16, 3), tf.float32, name="x")])  # type: ignore[untyped-decorator]
        def __call__(self, x: Any) -> dict[str, Any]:
            hidden = tf.nn.relu(tf.nn.conv2d(x, self.w, 1, "SAME"))
            return {"scores": tf.reduce_mean(hidden, (1, 2)) @ self.v, "hidden": hidden}

    def saved(name: str) -> Path:
        path = folder / name
        if name == "plain":
            net = Plain()
            tf.saved_model.save(net, str(path), signatures=net.__call__)
        else:
            KERAS[name]().export(str(path), verbose=False)
        return path

    def lite(name: str) -> Path:
        path = folder / f"{name}.tflite"
        path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(saved(name))).convert())
        return path

    for name in ("plain", *KERAS):
        yield f"{name}, SavedModel", lambda name=name: (saved(name), None)
    for name in ("plain", "mlp", "CNN", "transformer"):
        yield f"{name}, TFLite", lambda name=name: (lite(name), None)


def scikit_networks(_: Path) -> Iterator[tuple[str, Callable[[], Made]]]:
    """Fitted perceptrons."""
    import numpy as np
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 5)), rng.integers(0, 3, 60)
    for kind in (MLPClassifier, MLPRegressor):
        for activation in ("relu", "tanh", "logistic"):
            net = kind((16, 8), activation=activation, max_iter=20)
            yield f"{kind.__name__}, {activation}", lambda net=net: (net.fit(x, y), x[:4])


TIMM = (
    "resnet18",
    "mobilenetv3_small_050",
    "efficientnet_b0",
    "convnext_atto",
    "vit_tiny_patch16_224",
    "mixer_s32_224",
)


def timm_networks(folder: Path) -> Iterator[tuple[str, Callable[[], Made]]]:
    """Folders as the hub's: config.json and model.safetensors."""
    import timm
    from safetensors.torch import save_file

    def saved(name: str) -> Path:
        place = folder / name
        place.mkdir()
        save_file(timm.create_model(name, num_classes=10).state_dict(), place / "model.safetensors")
        (place / "config.json").write_text(json.dumps({"architecture": name, "num_classes": 10}))
        return place

    for name in TIMM:
        yield name, lambda name=name: (saved(name), None)


def transformers_networks(folder: Path) -> Iterator[tuple[str, Callable[[], Made]]]:
    """Folders as save_pretrained writes them, of small configurations."""
    import transformers as t

    text = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    wide = {"intermediate_size": 64}
    configurations = {
        "BertForSequenceClassification": t.BertConfig(**text, **wide),
        "DistilBertModel": t.DistilBertConfig(vocab_size=60, dim=32, n_layers=2, n_heads=4, hidden_dim=64),
        "GPT2LMHeadModel": t.GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4),
        "LlamaForCausalLM": t.LlamaConfig(**text, **wide, num_key_value_heads=2),
        "ViTForImageClassification": t.ViTConfig(
            **{key: at for key, at in text.items() if key != "vocab_size"}, **wide, image_size=32, patch_size=8
        ),
        "T5ForConditionalGeneration": t.T5Config(
            vocab_size=60, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0
        ),
    }

    def saved(name: str) -> Path:
        getattr(t, name)(configurations[name]).save_pretrained(folder / name)
        return folder / name

    for name in configurations:
        yield name, lambda name=name: (saved(name), None)


FRAMEWORKS = {
    "keras": keras_networks,
    "tensorflow": tensorflow_networks,
    "scikit-learn": scikit_networks,
    "timm": timm_networks,
    "transformers": transformers_networks,
}


def versions(framework: str) -> str:
    """Of the packages that take part and are installed."""
    found = []
    for name in (*VERSIONS[framework], "onnx", "onnxruntime"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:  # one of two names of a distribution
            continue
    return ", ".join(found)


@click.command()
@click.argument("framework", type=click.Choice(list(FRAMEWORKS)))
@click.option("--match", default="*", help="Names of networks, as a pattern.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The page to put the table into.")
def main(framework: str, match: str, output: Path | None) -> None:
    """Make, save, export, verify, compress."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        made = FRAMEWORKS[framework](Path(folder))
        rows, said = all_tried((name, make, {}) for name, make in made if fnmatch.fnmatch(name, match))
    if output is not None:
        lines = [f"`python benchmarks/export_frameworks.py {framework}`, {versions(framework)}. {said}"]
        put_section(output, framework, [*lines, "", *HEAD, *rows])


if __name__ == "__main__":
    main()
