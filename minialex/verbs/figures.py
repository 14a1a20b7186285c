"""minialex figures: everyday views of a run or of a network."""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

from ..flags import machine_flags, path, whole
from ..spec import MiniAlexError

# Flags that mean something to some kinds only.
BELONGS = {"layer": ("filters", "maps"), "picture": ("maps",), "channel": ("filters",), "data": ("confusion", "mistakes"),
           "store": ("confusion", "mistakes"), "count": ("mistakes",)}


def main(options: argparse.Namespace) -> None:
    """Draw curves, kernels, feature maps, confusions, mistakes, statistics."""
    out = Path(options.out or f"{options.kind}.png")
    _check(options, out)
    said = KINDS[options.kind](options, out)
    if not options.quiet:
        print("\n".join([*said, f"picture: {out}"]))


def _check(options: argparse.Namespace, out: Path) -> None:
    if out.suffix.lower() != ".png":
        raise MiniAlexError(f"--out {out}: only PNG is drawn; give a name that ends in .png")
    if not out.absolute().parent.is_dir() or out.is_dir():
        raise MiniAlexError(f"--out {out}: that is a folder, or in none that exists; give the name of a file in a folder that does")
    for flag, kinds in BELONGS.items():
        if getattr(options, flag) is not None and options.kind not in kinds:
            raise MiniAlexError(f"figures {options.kind} has no use for --{flag}, only {' and '.join(kinds)}; leave it away")
    if len(options.of) > 1 and options.kind != "curves":
        raise MiniAlexError(f"figures {options.kind} draws one run, and {len(options.of)} were named; only curves lays several together")


def _rows(name: str, file: str, cause: str) -> list[dict]:
    """The rows of a run's `file`, or of the run that a checkpoint lies in."""
    from ..journal import read
    place = Path(name)
    if not place.exists():
        raise MiniAlexError(f"{name}: there is no such file or folder; name a run directory such as runs/tiny-1")
    folder = place if place.is_dir() else place.parent
    if not (rows := read(folder / file)):
        raise MiniAlexError(f"{folder}: it has no {file}, or an empty one; {cause}")
    return rows


def curves(options: argparse.Namespace, out: Path) -> list[str]:
    from .. import figures
    runs = [(name, _rows(name, "metrics.jsonl", "name the directory of a run that ended an epoch")) for name in options.of]
    if len(runs) == 1:
        figures.curves(runs[0][1], out, title=runs[0][0])
    else:
        figures.overlaid(runs, out)
    return [f"{name}: {len(rows)} epochs, validation top-1 error {rows[-1]['validation']['top1']:.2f} %" for name, rows in runs]


def statistics(options: argparse.Namespace, out: Path) -> list[str]:
    from .. import figures
    from ..statistics import FILE
    rows = _rows(options.of[0], FILE, "train with --statistics 10 to have a row every ten steps")
    figures.statistics(rows, out, title=options.of[0])
    return [f"{options.of[0]}: {len(rows)} rows up to step {rows[-1]['step']}"]


def filters(options: argparse.Namespace, out: Path) -> list[str]:
    from .. import figures
    model = _model(options)
    specs, layers = model.net.params.specs, [layer.name for layer in model.net.layers]
    kernels = [name for name, part in specs if part == "w" and len(specs[name, part].shape) == 4]
    layer = options.layer or next(iter(kernels), None)
    if layer not in kernels:
        what = f"layer {layer} has no kernels to draw" if layer in layers else f"there is no layer {layer!r}"
        raise MiniAlexError(f"{model.path}: {what}; those that have are {', '.join(kernels) or 'none'}")
    w = model.net.params.numpy((layer, "w"))
    i = layers.index(layer)
    columns = model.net.shapes[i + 1].columns
    if options.channel is not None and options.channel >= w.shape[3]:
        raise MiniAlexError(f"--channel {options.channel}: kernels of {layer} read {w.shape[3]} channels; give 0 to {w.shape[3] - 1}")
    if w.shape[3] == 3 and options.channel is None:
        figures.filters(w, out, columns=columns)
        shares = figures.colourfulness(w, columns)
        return [f"{layer}: {len(w)} kernels, colourfulness " + ", ".join(f"{100 * own.mean():.1f} %" for own in shares)]
    if options.layer is None and i == 0 and options.channel is None:
        raise MiniAlexError(f"{model.path}: its first layer {layer} reads {w.shape[3]} channels, no colours; give --channel N "
                            "or --layer NAME")
    figures.deeper(w, out, columns=columns, channel=options.channel, layer=layer)
    return [f"{layer}: {len(w)} kernels of {w.shape[1]} x {w.shape[2]} x {w.shape[3]}"]


def maps(options: argparse.Namespace, out: Path) -> list[str]:
    from .. import figures
    from ..data import views
    from ..evaluate import on_each, seen
    from ..predict import pictures_of
    from ..retrieval.features import layer_of
    if options.picture is None:
        raise MiniAlexError("figures maps needs a picture: add --picture FILE, a JPEG or PNG")
    model = _model(options)
    names = [layer.output() for layer in model.net.layers]
    layer = layer_of(model, options.layer or _first_readable(model))
    shape = model.net.shapes[names.index(layer) + 1]
    if shape.H * shape.W == 1:
        mapped = [name for name, s in zip(names, model.net.shapes[1:], strict=True) if s.H * s.W > 1]
        raise MiniAlexError(f"{model.path}: layer {layer} has one value a unit and no maps; those with maps are {', '.join(mapped)}")
    images = pictures_of(model, [Path(options.picture)])
    for view in seen(model.net, images, on_each(model.net, model.mean), model.recipe, views(images.shape[1], model.recipe.crop, "centre")):
        model.net.fprop(n=1)
        crop = images[0, view.top:view.top + model.recipe.crop, view.left:view.left + model.recipe.crop]
    values = model.net.activation(layer)[:, 0]
    title = f"{Path(options.picture).name}: {shape.channels} maps of {layer}, {shape.H} x {shape.W}"
    figures.maps(crop, values, out, layer=layer, title=title)
    dead = int((abs(values).max(axis=(1, 2)) == 0).sum())
    return [f"{layer}: {shape.channels} maps of {shape.H} x {shape.W}, {dead} of them zero everywhere"]


def _first_readable(model) -> str:
    """The first layer whose values are still there behind the pass."""
    layers = model.net.layers
    return next(one.output() for one, above in pairwise(layers) if not above.in_place or "y" in one.bprop_reads)


def confusion(options: argparse.Namespace, out: Path) -> list[str]:
    from .. import figures, predictions
    made, _ = _predictions(options, pictures=False)
    counts = predictions.confusion(made)
    metrics = made.metrics()
    figures.confusion(counts, made.names, out, title=f"{made.split} pictures: {metrics}")
    return [str(metrics), *(f"  {made.names[a]} taken for {made.names[b]}: {n} of {counts[a].sum()}"
                            for a, b, n in figures.confused(counts, 10))]


def mistakes(options: argparse.Namespace, out: Path) -> list[str]:
    import numpy as np

    from .. import figures
    made, store = _predictions(options, pictures=True)
    if made.labels is None:
        raise MiniAlexError(f"{made.title}: nobody says what is right of its pictures, so none is a mistake; use a file with labels")
    p, labels, names = made.probabilities, made.labels, made.names
    numbers = figures.mistaken(p, labels, options.count or 8)
    if not len(numbers):
        raise MiniAlexError(f"{made.title}: no picture got a wrong answer, so there is no mistake to draw")
    drawn = [(image, names[labels[i]], [(names[k], float(p[i, k])) for k in np.argsort(-p[i], kind="stable")[:5]])
             for image, i in zip(store.split(made.split).read(numbers), numbers, strict=True)]
    figures.predictions(drawn, out)
    return [f"picture {i}: {names[labels[i]]}, taken for {names[p[i].argmax()]} with {100 * p[i].max():.1f} %" for i in numbers]


def _predictions(options: argparse.Namespace, *, pictures: bool) -> tuple:
    """(Predictions of the file named, or of the checkpoint named on its validation pictures; their store where `pictures` are needed)."""
    import numpy as np

    from .. import checkpoint, predictions, rundir
    from ..data import locate, store_of
    from ..evaluate import evaluate, validation_split
    from ..nets import recipe
    source, made, model = Path(options.of[0]), None, None
    try:
        if source.is_file():
            checkpoint.load(source, predictions.KIND)
            made = predictions.load(source)
    except checkpoint.CheckpointError:
        pass                                                    # a network's, or damaged: what follows says which
    if made is not None and not pictures:
        return made, None
    if made is None:
        model = _model(options, batch=128)
        record, data = model.mean.shape[0], options.data or model.config.data
    else:
        record, data = recipe(made.recipe).record, options.data
    found = locate(data, options.quiet)
    if model:
        rundir.same_classes(model.path, {"classes": model.classes}, found)
    folder = options.store or (model.config.store if model and not options.data else None)
    store = store_of(found, record, folder=folder, workers=options.workers, quiet=options.quiet)
    if made is None:
        split, parts = validation_split(store), []
        evaluate(model.net, store, split, model.recipe, which=model.recipe.test_views, mean=model.mean, collect=parts)
        made = predictions.of(model, store, split, np.concatenate(parts), model.recipe.test_views)
    elif made.fingerprint != store.fingerprint:
        raise MiniAlexError(f"{made.title}: it is of other pictures than {data or 'the embedded set'}; name with --data those it was "
                            "made of")
    return made, store


def _model(options: argparse.Namespace, batch: int = 1):
    from ..predict import trained
    return trained(options.of[0], device=options.device, batch=batch, workers=options.workers)


KINDS = {"curves": curves, "filters": filters, "maps": maps, "confusion": confusion, "mistakes": mistakes, "statistics": statistics}


def add(verbs) -> None:
    p = verbs.add_parser("figures", help="everyday views of a run or a network", description=main.__doc__)
    group = p.add_argument_group("what to draw")
    group.add_argument("kind", choices=tuple(KINDS), metavar="KIND", help="curves (of one run or several), filters, maps (of one picture), "
                       "confusion, mistakes (the surest), statistics (of weights, updates, gradients)")
    group.add_argument("of", nargs="+", type=path, metavar="PATH",
                       help="a run directory or a checkpoint; for confusion and mistakes also a prediction file")
    group.add_argument("--layer", metavar="NAME", help="of filters and maps (default: the first that can be drawn)")
    group.add_argument("--channel", type=whole(0), metavar="N",
                       help="of filters: input channel N of each kernel, in grey (default: colours, deeper the channel of most energy)")
    group.add_argument("--picture", type=path, metavar="FILE", help="of maps: a JPEG or PNG file (default: none, maps need one)")
    group.add_argument("--count", type=whole(1, 64), metavar="N", help="of mistakes: how many (default: 8)")
    group.add_argument("--data", type=path, metavar="DATA", help="of confusion and mistakes: as for train (default: what the checkpoint "
                       "was trained on; of a prediction file the embedded pictures)")
    group.add_argument("--store", type=path, metavar="DIR", help="where DATA is prepared to (default: stores/NAME-FINGERPRINT-SIZE)")
    machine_flags(p)
    group = p.add_argument_group("output")
    group.add_argument("--out", type=path, metavar="PNG", help="where the picture goes (default: KIND.png here)")
    group.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors (default: a line for each finding)")
    p.set_defaults(run=main)
