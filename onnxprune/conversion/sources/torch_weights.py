"""Files of weights alone: refused with what to do."""

from __future__ import annotations

from typing import Any, NoReturn

from onnxprune.conversion.base import ExportOptions, has_suffix, network_source
from onnxprune.errors import ModelError


@network_source("torch-weights")
class TorchWeights:
    """Files of weights (.pt, .pth, .safetensors) are not networks: they go into one, with --weights."""

    @staticmethod
    def takes(given: Any) -> bool:
        """Is it such a file?"""
        return has_suffix(given, ".pt", ".pth", ".safetensors")

    @staticmethod
    def open(given: Any, example_inputs: Any, options: ExportOptions) -> NoReturn:  # noqa: ARG004
        """Raises ModelError, always."""
        raise ModelError(
            f"{given} holds weights, not the network that they are of; name the function that makes it: onnxprune "
            f"export package.net:make --weights {given}"
        )
