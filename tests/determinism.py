"""Same bits from run to run: training steps of `paper`, twice in this process and once in another, must end in one checksum.

    python tests/determinism.py --device cuda:0 --batch 128 [--steps 3] [--recipe paper] [--precision bf16]
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys

import numpy as np

from minialex.backends import load
from minialex.config import Config
from minialex.net import Net
from minialex.nets import recipe as recipe_of
from minialex.optim import SGD
from minialex.spec import PRECISIONS


def checksum(device: str, name: str, batch: int, steps: int, precision: str) -> str:
    """SHA-256 of all weights and momenta after `steps` steps on fixed random pictures."""
    ops = load(*Config(recipe=name, device=device).backends[0])
    ops.set_precision(precision)
    recipe = recipe_of(name)
    net = Net(recipe.build(recipe.classes), recipe.input, batch, ops, seed=3)
    sgd = SGD(net, momentum=recipe.momentum, decay=recipe.decay)
    random = np.random.default_rng(7)
    for step in range(steps):
        net.show(60 * random.standard_normal(recipe.input.array(batch)))
        loss = net.fprop(random.integers(0, recipe.classes, batch).astype(np.int32), training=True, step=step)
        if not np.isfinite(loss):
            raise SystemExit(f"the loss is {loss} after {step} steps")
        net.bprop()
        sgd.step(recipe.rate / 100)
    total = hashlib.sha256()
    for array in (net.params.flat, sgd.velocity.flat):
        total.update(ops.to_host(array).tobytes())
    return total.hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--recipe", default="paper")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--precision", default="", help="one precision (default: all that the device has)")
    parser.add_argument("--once", action="store_true", help="print one checksum and end")
    options = parser.parse_args()
    compiled = options.device.split(":")[0] in ("cuda", "emulated")
    precisions = [options.precision] if options.precision else [*PRECISIONS] if compiled else ["float32"]
    run = (options.device, options.recipe, options.batch, options.steps)
    if options.once:
        print(checksum(*run, precisions[0]))
        return 0
    different = 0
    for precision in precisions:
        here = [checksum(*run, precision) for _ in range(2)]
        again = [sys.executable, __file__, *sys.argv[1:], "--precision", precision, "--once"]
        here.append(subprocess.run(again, check=True, capture_output=True, text=True).stdout.strip())
        same = len(set(here)) == 1
        different += not same
        print(f"{precision:<8} {'the same three times' if same else 'DIFFERENT'}: {', '.join(dict.fromkeys(word[:16] for word in here))}")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
