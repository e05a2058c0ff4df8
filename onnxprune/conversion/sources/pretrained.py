"""Models of transformers and timm, from a local folder; from a hub only where that is asked for."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from onnxprune.conversion.base import ExportOptions, Opened, cause_of, network_source
from onnxprune.errors import MissingExtraError, ModelError, OnnxpruneError, UsageError
from onnxprune.support.extras import check_torch

_PREFIXES = {"transformers:": "transformers", "timm:": "timm"}


@network_source("pretrained")
class Pretrained:
    """The folder of a model of transformers or timm, with config.json; with --hub transformers:NAME or timm:NAME."""

    @staticmethod
    def takes(given: Any) -> bool:
        """Is it such a folder, or the name of a model of a hub?"""
        if isinstance(given, str) and given.startswith(tuple(_PREFIXES)):
            return True
        return isinstance(given, str | Path) and (Path(given) / "config.json").is_file()

    @staticmethod
    def open(given: Any, example_inputs: Any, options: ExportOptions) -> Opened:
        """The network, in torch. Raises UsageError for a name without --hub, MissingExtraError, ModelError."""
        check_torch()
        package, place, local = _place(str(given))
        if not local and not options.hub:
            raise UsageError(f"{given} is downloaded from a hub: say --hub to allow that, or give a local folder")
        if find_spec(package) is None:
            raise MissingExtraError(package, package)
        try:
            module, made = (_transformers if package == "transformers" else _timm)(place, local=local)
        except OnnxpruneError:
            raise
        except Exception as error:  # whatever the package raises
            raise ModelError(f"{given} cannot be loaded: {cause_of(error)}") from error
        from onnxprune.conversion.torch.network import TorchNetwork, bound, made_examples
        from onnxprune.conversion.torch.opening import opened_network

        inputs = (
            made_examples(options.example) if options.example else made if example_inputs is None else example_inputs
        )
        return opened_network(TorchNetwork(module, bound(module, inputs), {}, options))


def _place(given: str) -> tuple[str, str, bool]:
    """The package, the name or folder, and whether it lies on this machine."""
    for prefix, package in _PREFIXES.items():
        if given.startswith(prefix):
            return package, given.removeprefix(prefix), False
    config = json.loads((Path(given) / "config.json").read_text(encoding="utf-8"))
    return "timm" if "architecture" in config else "transformers", given, True


def _transformers(place: str, *, local: bool) -> tuple[Any, dict[str, Any]]:
    """The class that the configuration names, with inputs made up for what it reads."""
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(place, local_files_only=local, trust_remote_code=False)
    names = list(getattr(config, "architectures", None) or ())
    kind = getattr(transformers, names[0], None) if names else transformers.AutoModel
    if kind is None:
        raise ModelError(f"transformers has no class {names[0]}; code that comes with a model is not run")
    if hasattr(config, "use_cache"):
        config.use_cache = False
    module = kind.from_pretrained(place, config=config, local_files_only=local)
    generator = torch.Generator().manual_seed(0)
    if module.main_input_name == "pixel_values":
        size = getattr(config, "image_size", 224)
        shape = (2, getattr(config, "num_channels", 3), *(size if isinstance(size, list | tuple) else (size, size)))
        return module, {"pixel_values": torch.randn(shape, generator=generator)}
    if module.main_input_name != "input_ids":
        raise UsageError(f"it reads {module.main_input_name}: give --example {module.main_input_name}:...")
    ids = torch.randint(0, int(config.vocab_size), (2, 16), generator=generator)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if getattr(config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = ids[:, :8]
    return module, inputs


def _timm(place: str, *, local: bool) -> tuple[Any, Any]:
    """The architecture that the configuration names, with its weights, and a picture of its size."""
    import timm
    import torch

    if local:
        config = json.loads((Path(place) / "config.json").read_text(encoding="utf-8"))
        weights = next(Path(place).glob("*.safetensors"), None)
        if weights is None:
            raise ModelError(f"{place} holds no .safetensors; pickled weights of timm are not opened")
        settings = {"num_classes": config["num_classes"]} if "num_classes" in config else {}
        module = timm.create_model(
            config["architecture"], checkpoint_path=str(weights), **settings, **config.get("model_args", {})
        )
    else:
        module = timm.create_model(place, pretrained=True)
    size = module.default_cfg.get("input_size", (3, 224, 224))
    return module, torch.randn(2, *size, generator=torch.Generator().manual_seed(0))
