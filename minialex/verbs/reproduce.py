"""minialex reproduce: the experiments of the paper."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..flags import DEVICES, path, whole

EXAMPLES = """Each experiment leaves a result (JSON) and a picture in the folder.  Runs
that have finished are not run again, those that were stopped go on; what
they mean is judged anew.  `minialex report` gathers all into one page.

minialex reproduce --list
minialex reproduce all
minialex reproduce fig1 --cifar cifar-10-batches-bin
minialex reproduce lrn pooling --data PICTURES --seeds 5"""


def main(options: argparse.Namespace) -> None:
    """Run experiments of the paper, each with its figures beside the paper's."""
    from ..reproduce.catalogue import CATALOGUE, experiments
    from ..reproduce.conduct import conduct
    from ..reproduce.crew import Crew
    from ..reproduce.lab import Lab, cores
    from ..spec import MiniAlexError
    if options.list:
        width = max(map(len, CATALOGUE))
        for name, one in CATALOGUE.items():
            print(f"{name:<{width}}  {one.section:<22}{'/'.join(one.scales):<14}{one.title}")
        return
    if not options.names:
        raise MiniAlexError("say which experiment: minialex reproduce NAME, minialex reproduce all; minialex reproduce --list names them")
    chosen = experiments(options.names)
    folder = Path(options.out)
    lab = Lab(options.scale, folder, options.data, options.cifar, options.other, options.remark, options.seeds, options.device,
              options.quiet)
    crew = Crew(folder / "runs", jobs=options.jobs or cores(), device=options.device, quiet=options.quiet)
    conduct(chosen, lab, crew, crew.progress.say)
    if not options.quiet:
        print(f"results: {folder}/NAME-{options.scale}.json and .png; minialex report {folder} makes the page")


def add(verbs) -> None:
    p = verbs.add_parser("reproduce", help="the paper's experiments", description=main.__doc__, epilog=EXAMPLES)
    group = p.add_argument_group("what to run")
    group.add_argument("names", nargs="*", metavar="NAME", help="experiments, or all")
    group.add_argument("--list", action="store_true", help="name the experiments and end (default: run)")
    group.add_argument("--scale", choices=("quick", "cifar", "full"), default="quick",
                       help="quick: minutes on two cores; cifar: all of CIFAR-10; full: as the paper did, for a GPU (default: quick)")
    group.add_argument("--seeds", type=whole(1, 1000), metavar="N", help="of every arm (default: 3 or 5 at quick, else 1)")
    group = p.add_argument_group("pictures")
    group.add_argument("--data", type=path, metavar="DATA", help="photographs, as for train (default: the embedded pictures, at quick)")
    group.add_argument("--cifar", type=path, metavar="DATA", help="CIFAR-10 (default: the embedded pictures at 32 pixels, at quick)")
    group.add_argument("--other", type=path, metavar="DATA",
                       help="photographs of other classes, to pre-train on at full (default: at quick half of the classes)")
    group.add_argument("--remark", default="", metavar="TEXT", help="to say beside every figure about these pictures (default: nothing)")
    group = p.add_argument_group("machine")
    group.add_argument("--out", type=path, default="reproduction", metavar="DIR", help="results, runs, stores (default: reproduction)")
    group.add_argument("--device", default="cpu", metavar="DEVICE", help=f"{DEVICES} (default: cpu)")
    group.add_argument("-j", "--jobs", type=whole(1), metavar="N", help="runs at a time, a core each (default: one a core)")
    group.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors (default: progress)")
    p.set_defaults(run=main)
