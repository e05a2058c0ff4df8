"""Modules of torch."""

from __future__ import annotations

from typing import Any

from onnxprune.conversion.base import ExportOptions, Opened, is_made_of, network_source
from onnxprune.support.extras import check_torch


@network_source("torch-module")
class TorchModule:
    """A torch.nn.Module, exported by torch.onnx: with dynamo first, and over TorchScript where that fails."""

    @staticmethod
    def takes(given: Any) -> bool:
        """Is it a module?"""
        return is_made_of(given, "torch", "Module")

    @staticmethod
    def open(given: Any, example_inputs: Any, options: ExportOptions) -> Opened:
        """Tried in evaluation mode; its own mode is put back."""
        check_torch()
        from onnxprune.conversion.torch.network import TorchNetwork, bound, made_examples
        from onnxprune.conversion.torch.opening import opened_network
        from onnxprune.conversion.torch.weights import load_weights

        if options.weights is not None:
            load_weights(given, options.weights)
        inputs = made_examples(options.example) if options.example else example_inputs
        return opened_network(TorchNetwork(given, bound(given, inputs), {}, options))
