"""minialex average: Average prediction files of several networks and print the error rates."""

from __future__ import annotations

import argparse
import json
import math

from ..flags import output_flags, path
from ..spec import MiniAlexError
from .evaluate import check_files, few, judged_flags, ties_flag, write

ABOUT = """Each FILE comes from minialex evaluate CHECKPOINT --save-predictions FILE.
Searched coefficients are those of the least mean log loss on the validation
pictures of --search-on; then they weigh FILEs, which may be of a test set:

minialex average a.test b.test --coefficients search --search-on a.val b.val"""


def main(options: argparse.Namespace) -> None:
    """Average prediction files of several networks and print the error rates."""
    from .. import predictions
    check_files(options, "out", "per_class", "submission")
    searching = options.coefficients == "search"
    if options.search_on and not searching:
        raise MiniAlexError("--search-on says where coefficients are searched: add --coefficients search, or leave it out")
    several = [predictions.load(name) for name in options.files]
    coefficients, notes = options.coefficients if isinstance(options.coefficients, list) else None, []
    if searching:
        searched = [predictions.load(name) for name in options.search_on] if options.search_on else several
        same = predictions.same_networks(several, searched)
        coefficients = predictions.search(searched).tolist()
        notes = ["searched on the pictures they are judged on, so these errors are too good: give validation predictions by --search-on"
                 if same else f"searched on {len(searched[0]):,} {searched[0].split} pictures, judged on {several[0].split}"]
    made = predictions.average(several, coefficients)
    coefficients = coefficients or [1 / len(several)] * len(several)
    if made.labels is None and not (options.out or options.submission):
        raise MiniAlexError(f"{made.title}: the pictures have no labels, so there is no error to print; give --out or --submission")
    ties = options.ties or made.ties
    result = {"coefficients": coefficients, "ties": ties, "split": made.split, "views": made.views, "classes": len(made.classes),
              "files": []}
    lines = []
    for name, one, share in zip(options.files, several, coefficients, strict=True):
        judged = None if one.labels is None else one.metrics(ties)
        result["files"].append({"file": name, "checkpoint": one.checkpoint} | (judged.as_dict() if judged else {}))
        lines.append(f"{share:.4f} of {name}" + (f": {judged}" if judged else ""))
    if made.labels is not None:
        metrics = made.metrics(ties)
        result |= metrics.as_dict()
        lines += [f"average of {len(several)}: {metrics}", *few(len(made.classes))]
    if searching:
        result |= {"searched_on": options.search_on or options.files, "judged_on_the_same_pictures": same}
        lines.append(f"coefficients: {notes[0]}")
    more, text = write(made, save=options.out, per_class=options.per_class, submission=options.submission, ties=ties)
    print(json.dumps(result | more) if options.json else "\n".join(lines + text))


def weights(text: str) -> str | list[float]:
    """The type of --coefficients."""
    if text in ("equal", "search"):
        return text
    try:
        values = [float(word) for word in text.split(",")]
    except ValueError:
        values = [math.nan]
    if not all(0 <= value <= 1 for value in values):
        raise argparse.ArgumentTypeError(f"{text!r} was given, equal, search, or numbers from 0 to 1 such as 0.2,0.8 are needed")
    return values


def add(verbs) -> None:
    p = verbs.add_parser("average", help="average prediction files of several networks", description=main.__doc__, epilog=ABOUT)
    group = p.add_argument_group("what to average")
    group.add_argument("files", nargs="+", type=path, metavar="FILE", help="prediction files of the same pictures, one a network")
    group.add_argument("--coefficients", type=weights, default="equal", metavar="WHICH", help="equal; search, on labelled pictures; "
                       "or numbers that sum to 1, such as 0.2,0.8 (default: equal)")
    group.add_argument("--search-on", nargs="+", type=path, metavar="FILE", help="search coefficients on these, the same networks in the "
                       "same order on other pictures (default: on the pictures to be judged, which flatters)")
    ties_flag(group)
    group = output_flags(p)
    group.add_argument("--out", type=path, metavar="FILE", help="also write the averaged predictions (default: no file)")
    judged_flags(group)
    p.set_defaults(run=main)
