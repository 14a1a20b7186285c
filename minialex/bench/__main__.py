"""`python -m minialex.bench`: what the library measures about itself."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from ..backends import load
from ..config import Config
from ..files import write_json
from ..flags import DEVICES, Parser
from ..nets import RECIPES, recipe
from ..placement import places
from ..spec import MiniAlexError
from .measure import environment

# Without these glibc gives large blocks back to the system after every step and PyTorch loses 15-20 % to page faults.
MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}

ABOUT = """Measure MiniAlex on this machine.

  step   whole training step of a recipe: fprop with dropout, bprop, update (default)
  ops    every op and pass at the recipe's shapes, each compared with the float64 oracle before it is timed
  data   preparation and loading: pictures a second
  exchange   copies between the columns' devices, and steps on two devices beside one: --device cuda:0,cuda:1
  retrieval  exact search among features beside the matrix product in it, and Hamming search of codes
  allreduce  the sum of a recipe's gradients over 2 and 4 processes, which it starts itself, beside a copy of memory

Contenders take turns in one process, each from the same numbers; ratios are medians over rounds of (their time / MiniAlex's).
Quiet machines only: the load average is written beside the result.

`ops` runs each variant of each op.  "cold": caches emptied before the call; "warm": call after call (on a GPU ten launches
between two events, each a CUDA graph).  GB/s counts each array once.  "copy" is the share of the copy bandwidth measured at
the start, "floor" the share of the best possible time: bytes at that bandwidth or products at the measured matrix rate.
A row beyond its bound is not timed, and the exit status is 1."""

EXAMPLES = """examples:
  python -m minialex.bench --batch 32,128 --peer torch --rounds 9 --json benchmarks/results/step_paper.json
  python -m minialex.bench ops --batch 32
  python -m minialex.bench ops --device emulated:0 --verify-only
  python -m minialex.bench ops --device cuda:0 --batch 128 --peer torch --json ops.json --chart ops.png
  python -m minialex.bench exchange --device cuda:0,cuda:1 --batch 128 --json exchange.json
  python -m minialex.bench --recipe tiny --peer none"""


def _batches(text: str) -> list[int]:
    sizes = [int(part) for part in text.split(",")]
    if min(sizes) < 1:
        raise ValueError(text)
    return sizes


def _sizes(text: str) -> tuple[int, int, int]:
    rows, queries, width = _batches(text)
    return rows, queries, width


def parser() -> Parser:
    result = Parser(prog="python -m minialex.bench", description=ABOUT, epilog=EXAMPLES)
    result.add_argument("what", nargs="?", default="step", choices=("step", "ops", "data", "exchange", "allreduce", "retrieval", "memory"),
                        metavar="step|ops|data|exchange|allreduce|retrieval",
                        help="what to measure (default: step)")
    result.add_argument("--device", default="cpu", metavar="DEVICE", help=f"{DEVICES} (default: cpu)")
    result.add_argument("--recipe", default="paper", metavar="NAME", help=f"network: {', '.join(RECIPES)} (default: paper)")
    result.add_argument("--batch", type=_batches, default=None, metavar="N[,N]", help="images a step "
                        "(default: 32,128; ops: 32; on a GPU 128, on the emulator 2)")
    result.add_argument("--peer", default="plain", choices=("none", "plain", "torch"),
                        help="compare with the plain NumPy version (`step` on the CPU alone), or with PyTorch on the same device "
                        "(default: plain)")
    result.add_argument("--best", action="store_true", help="with --peer torch: also PyTorch's strongest forms of the whole step, "
                        "compiled, and on a GPU as one CUDA graph, minutes each (default: eager forms)")
    result.add_argument("--only", default="", metavar="WORD", help="`step`: of MiniAlex's precisions on a GPU and PyTorch's forms those "
                        "with this word in name or note, such as bf16; `ops`: the layer of this name (default: all)")
    result.add_argument("--verify-only", action="store_true",
                        help="`ops`: compare every variant with the oracle, time nothing (default: both)")
    result.add_argument("--malloc", default="tuned", choices=("tuned", "default"),
                        help="with --peer torch: keep freed memory in the process, which PyTorch on the CPU gains from, or leave the "
                        "allocator as a user finds it (default: tuned)")
    result.add_argument("--sizes", type=_sizes, metavar="ROWS,QUERIES,WIDTH",
                        help="`retrieval`: of the features (default: 200000,1000,4096)")
    result.add_argument("--rounds", type=int, default=7, metavar="R", help="timed rounds (default: 7)")
    result.add_argument("--workers", type=int, metavar="N", help="worker threads, and threads of the peers (default: all processors)")
    result.add_argument("--chart", metavar="FILE", help="`ops`: also a bar chart, PNG")
    result.add_argument("--json", metavar="FILE", help="also write the figures with command, commit, machine, versions and date")
    return result


def main(arguments: list[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    args = parser().parse_args(given)
    try:
        recipe(args.recipe)
        if args.rounds < 1:
            raise MiniAlexError(f"--rounds {args.rounds}: at least one round is needed")
        for flag in ("json", "chart"):
            target = getattr(args, flag)
            if target and not Path(target).absolute().parent.is_dir():
                raise MiniAlexError(f"--{flag} {target}: there is no folder {Path(target).absolute().parent}; make it first")
        return _run(args, given)
    except MiniAlexError as error:
        print(f"minialex.bench: error: {error}", file=sys.stderr)
        return 2


def _run(args, given: list[str]) -> int:
    config = Config(recipe=args.recipe, device=args.device)
    named = config.backends
    if (len(named) > 1) != (args.what == "exchange"):
        raise MiniAlexError(f"{args.what} --device {args.device}: `exchange` needs the devices of all columns, such as "
                            "emulated:0,emulated:1, and the others one device")
    devices = places(config) if len(named) > 1 else [load(*named[0])]
    ops, (backend, place) = devices[0], named[0]
    if args.workers:
        ops.set_workers(args.workers)
    usual = {"emulated": [2], "cuda": [128]}.get(backend, [32] if args.what == "ops" else [32, 128])
    batches = args.batch or usual
    if args.what == "memory":
        from .steps import memory
        print(memory(args.recipe, ops, batches[0]))
        return 0
    versions, failed = {}, 0
    peers = {"none": (), "plain": ("plain",), "torch": ("torch", "plain")}[args.peer]
    peers = tuple(peer for peer in peers if peer == "torch" or backend in ("cpu", "reference"))
    if "torch" in peers and args.what not in ("data", "allreduce", "retrieval"):
        if importlib.util.find_spec("torch") is None:
            raise MiniAlexError("--peer torch: PyTorch is not installed here; pip install torch, or use --peer plain")
        if args.malloc == "tuned" and backend != "cuda" and not all(os.environ.get(name) == value for name, value in MALLOC.items()):
            sys.stdout.flush()              # glibc reads these when a process starts
            os.execve(sys.executable, [sys.executable, "-m", "minialex.bench", *given], {**os.environ, **MALLOC})
        import torch
        versions["torch"] = torch.__version__
    where = environment(ops, given, **versions)
    print(f"{where['processor']}, {where['processors']} processors, {where['workers']} workers, load {where['load_average'][0]}, "
          f"commit {(where['commit'] or 'none')[:12]}, " + ", ".join(f"{name} {version}" for name, version in where["versions"].items()))
    if args.what == "step":
        from .steps import bench_steps
        tables = bench_steps(args.recipe, ops, args.device, batches, peers, args.rounds, best=args.best, only=args.only)
    elif args.what == "ops":
        from .ops import bench_ops
        tables, failed = bench_ops(args.recipe, ops, batches, args.rounds, backend=backend, peer="torch" in peers,
                                   verify_only=args.verify_only, only=args.only)
    elif args.what == "exchange":
        from .exchange import bench_exchange
        tables = bench_exchange(args.recipe, devices, batches[0], args.rounds)
    elif args.what == "allreduce":
        from .allreduce import bench_allreduce
        tables = bench_allreduce(args.recipe, args.rounds)
    elif args.what == "retrieval":
        from .retrieval import SIZES, bench_retrieval
        tables = bench_retrieval(args.sizes or SIZES, args.rounds)
    else:
        from .data import bench_data
        tables = bench_data(args.rounds, ops, args.device)
    if args.chart and args.what == "ops" and not args.verify_only:
        from .chart import draw
        machine = where["devices"][place] if "devices" in where else where["processor"]
        draw(tables[-1], f"{args.recipe}, batch {batches[-1]}, {args.device}: {machine}", args.chart)
        print(f"drawn in {args.chart}")
    if args.json:
        write_json(args.json, {"environment": where, "tables": tables})
        print(f"written to {args.json}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
