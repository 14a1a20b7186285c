"""Every variant of every op once on small shapes, held against the oracle: what compute-sanitizer watches (tests/gpu_check.sh).

    python tests/run_kernels.py --device cuda:0
"""

from __future__ import annotations

import argparse
import sys

from minialex.backends import load
from minialex.bench.ops import bench_ops
from minialex.bench.rows import rows
from minialex.config import Config

RECIPES = (("tiny", 2), ("cifar13", 3), ("cifar18", 3))      # odd batches leave tails; local layers, average pools, response norms


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="emulated:0")
    options = parser.parse_args()
    backend, place = Config(recipe="tiny", device=options.device).backends[0]
    ops = load(backend, place)
    wrong = sum(bench_ops(name, ops, [batch], 1, backend=backend, verify_only=True)[1] for name, batch in RECIPES)
    ran = {row.op for name, batch in RECIPES for row in rows(name, batch)}
    print(f"{len(ran)} ops, {wrong} rows wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
