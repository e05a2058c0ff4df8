"""Programs that torch.export has written."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from onnxprune.conversion.base import ExportOptions, Opened, has_suffix, is_made_of, network_source
from onnxprune.errors import ModelError, UsageError
from onnxprune.support.extras import check_torch


@network_source("torch-program")
class TorchProgram:
    """An ExportedProgram of torch.export, or the .pt2 file of one; which axes are open is in it."""

    @staticmethod
    def takes(given: Any) -> bool:
        """Is it a program, or a .pt2 file?"""
        return is_made_of(given, "torch", "ExportedProgram") or has_suffix(given, ".pt2")

    @staticmethod
    def open(given: Any, example_inputs: Any, options: ExportOptions) -> Opened:
        """Its inputs are those that it was exported with. Raises ModelError for a file that is none, or is unsafe."""
        check_torch()
        from onnxprune.conversion.torch.opening import opened_program

        if options.dynamic or options.weights or options.keep_batchnorm:
            raise UsageError("a program was exported already: its axes, weights and norms are what they are")
        program = _loaded(Path(given)) if isinstance(given, str | Path) else given
        return opened_program(program, example_inputs, options)


def _loaded(path: Path) -> Any:
    """Load a .pt2 file without unpickling Python objects. Raises ModelError where it holds some."""
    from onnxprune.conversion.torch.weights import tensors_only

    if not path.is_file():
        raise ModelError(f"{path} does not exist; check the path")
    try:
        names = zipfile.ZipFile(path).namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise ModelError(f"{path} is not a .pt2 file, or is truncated; save it again with torch.export.save") from error
    if any(Path(name).name.startswith(("opaque_obj_", "custom_obj_")) for name in names):
        raise ModelError(f"{path} holds Python objects, which are not loaded, for they may run any code")
    import torch

    try:
        with tensors_only():
            return torch.export.load(path)
    except Exception as error:  # whatever torch raises for a file that it cannot read
        from onnxprune.conversion.base import cause_of

        raise ModelError(f"{path} cannot be loaded: {cause_of(error)}") from error
