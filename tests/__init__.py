"""The suite. Pools of threads, one per library, wait for each other's cores: each gets one, unless told otherwise."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
