"""The options that say how data is read, from a command line or a test configuration to the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxprune.errors import UsageError

if TYPE_CHECKING:  # the command line shows its help without them
    import onnx_ir as ir

    from onnxprune.data.base import Data

_IMAGES = ("resize", "crop", "scale", "mean", "std", "layout", "channel_order")


_OTHERS = ("labels", "samples", "batch", "tokenizer")


BATCH = 32


def data_from(options: dict[str, Any], model: ir.Model | None, seed: int) -> Data | None:
    """Take the options of `data_options` out of a command's keyword arguments and open the data; None without --data.

    Raises UsageError for options that say something about data where there is none, DataError for data that does not
    fit the model.
    """
    spec = options.pop("data", None)
    shapes = options.pop("input_shape", ())
    given = {name: options.pop(name, None) for name in (*_IMAGES, *_OTHERS)}
    given = {name: value for name, value in given.items() if value is not None}
    if spec is None:
        for name in given:
            raise UsageError(f"--{name.replace('_', '-')} says how to read --data, which is not there; add it")
        return None
    assert model is not None

    from onnxprune.data.base import NO_HINTS, load_data
    from onnxprune.data.pixels import ImageOptions
    from onnxprune.data.sources.synthetic import hints_of
    from onnxprune.model.signature import given_sizes, ports_of

    ports = ports_of(model)
    return load_data(
        spec,
        ports,
        labels=given.get("labels"),
        samples=given.get("samples"),
        batch=given.get("batch", BATCH),
        seed=seed,
        sizes=given_sizes(shapes, ports),
        images=ImageOptions(**{name: given[name] for name in _IMAGES if name in given}),
        tokenizer=given.get("tokenizer"),
        hints=hints_of(model) if spec == "synthetic" else NO_HINTS,
    )
