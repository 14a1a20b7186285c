"""One run in a process of its own: python -m minialex.reproduce.worker ORDER, with ORDER the JSON text that crew.py writes.

Says how many pictures it has learnt from on lines of its standard output, and last, in FINISHED beside its checkpoint, what came of it.
Ends, with a checkpoint, when it is asked to or when the process that started it is gone.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from .. import files
from ..checkpoint import candidates
from ..evaluate import evaluate
from ..flags import guarded
from ..spec import Diverged, Interrupted
from ..train import Trainer
from .arms import FINISHED

INTERVAL = 0.5              # seconds between two lines


def learn(order: dict) -> dict:
    """Trains as ordered, from where an earlier process was stopped; returns what FINISHED holds."""
    folder, parent = Path(order["asked"]["output_dir"]), os.getppid()
    begun = bool(candidates(folder)) if folder.is_dir() else False
    seconds = json.loads((folder / "seconds.json").read_text()) if begun and (folder / "seconds.json").is_file() else 0.0
    began = said = time.monotonic()
    asked = order["asked"] | {"init": None if begun else order["init"]}
    with Trainer(asked, resume="auto" if begun else None, quiet=True, pictures=False) as trainer:
        try:
            per_epoch = min(len(trainer.split), trainer.steps_per_epoch * trainer.config.batch)
            for epoch in trainer.epochs():
                for batch in trainer.batches(epoch):
                    trainer.learn(batch)
                    if time.monotonic() - said > INTERVAL:
                        said = time.monotonic()
                        if os.getppid() != parent:              # nobody reads what would be said
                            trainer.save()
                            raise Interrupted("the program that ordered this run is gone", 143)
                        print(epoch * per_epoch + trainer.position * trainer.config.batch, flush=True)
                error = 100 - 100 * trainer.sums["right1"] / max(1, trainer.sums["images"])
                trainer.validate(epoch)
                files.write_json(folder / "seconds.json", seconds + time.monotonic() - began)
                if order["until"] is not None and error <= order["until"]:
                    break
            fitted = evaluate(trainer.net, trainer.store, trainer.split, trainer.recipe)
        except Diverged as error:
            return {"rows": trainer.journal.epochs(), "diverged": str(error), "fitted": None,
                    "seconds": seconds + time.monotonic() - began}
        return {"rows": trainer.journal.epochs(), "diverged": None, "fitted": fitted.as_dict(),
                "seconds": seconds + time.monotonic() - began}


def main() -> None:
    order = json.loads(sys.argv[1])
    folder = Path(order["asked"]["output_dir"])
    found = learn(order)
    files.write_json(folder / FINISHED, found)
    (folder / "best").unlink(missing_ok=True)               # experiments judge the last weights, as the paper did
    for path in candidates(folder)[1:]:                     # newest first: one checkpoint is kept
        path.unlink()


if __name__ == "__main__":
    sys.exit(guarded(main))
