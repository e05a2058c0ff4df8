"""Several processes of one command, as `torchrun` starts them: the first alone reports and writes."""

from __future__ import annotations

import os


def is_first_process() -> bool:
    """Is this the first of the processes that were started together, or the only one?"""
    return os.environ.get("RANK", "0") == "0"
