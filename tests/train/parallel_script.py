"""One process of a training of several, or the only one: started by `torchrun`, or alone.

python -m torch.distributed.run --standalone --nproc-per-node 2 parallel_script.py MODEL OUT OPTIONS [CHECKPOINT]
"""

import json
import os
import sys
from pathlib import Path

from onnxprune.model.file import open_model, save
from onnxprune.steps.train.distil import Teacher
from onnxprune.steps.train.loop import train_model
from onnxprune.steps.train.setup import Running
from tests.train.harness import options
from tests.train.test_equivalence import data


def main() -> None:
    model, out, given = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    running = Running(checkpoint=Path(sys.argv[4]), every=0.0, resume=True) if len(sys.argv) > 4 else Running()
    opened = open_model(model)
    trained = train_model(opened, data(), options(**given), teacher=Teacher(opened), running=running)
    rank = os.environ.get("RANK", "0")
    save(trained.model, out.with_name(f"{out.stem}.{rank}.onnx"))
    out.with_name(f"{out.stem}.{rank}.json").write_text(json.dumps([trained.losses, trained.samples, trained.notes]))


main()
