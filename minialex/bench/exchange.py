"""What the exchange between columns costs, and what the second device brings (paper, section 3.2)."""

from __future__ import annotations

import statistics

import numpy as np

from ..column_net import ColumnNet
from ..columns import check_columns, exchange_points
from ..net import Net
from ..nets import recipe as recipe_of
from .measure import Contender, once, paired_ratio, take_turns
from .steps import SEED, own_step


def _net(name: str, batch: int, places: list, overlap: bool = True) -> tuple:
    made = recipe_of(name)
    layers = made.build(made.classes)
    net = ColumnNet(layers, made.input, batch, places, seed=SEED, overlap=overlap) if len(places) > 1 else \
        Net(layers, made.input, batch, places[0], seed=SEED, overlap=overlap)
    random = np.random.default_rng(SEED)
    pictures = (random.standard_normal(made.input.array(batch)) * 60).astype(np.float32)
    net.show(pictures)
    return made, net, random.integers(0, made.classes, batch).astype(np.int32)


def _contender(label: str, name: str, batch: int, places: list, overlap: bool = True) -> Contender:
    made, net, labels = _net(name, batch, places, overlap)
    step = own_step(made, net, labels)

    def finished() -> None:
        step()
        for ops in places:
            ops.finish()
    return Contender(label, ", ".join(ops.name() for ops in places), finished)


def _copies(name: str, batch: int, places: list, rounds: int) -> list[dict]:
    """Median time of each exchange alone, all columns at once, nothing else running: fprop's activations, bprop's gradients."""
    _, net, _ = _net(name, batch, places)
    rows = []
    for point in exchange_points(net.layers, net.shapes[0]):
        for direction in ("fprop", "bprop"):
            partial = point.row_parallel
            nbytes = point.partial_bytes(batch) if partial else point.bytes(batch)
            pairs = [(s, t) for s in range(len(places)) for t in range(len(places)) if s != t]
            if partial:
                pairs = [(s, t) for s, t in pairs if (t if direction == "fprop" else s) == 0]
            sent = [ops.from_host(np.zeros(nbytes, np.uint8)) for ops in places]
            into = {pair: places[pair[1]].empty((nbytes,), "uint8") for pair in pairs}

            def exchange(pairs=pairs, sent=sent, into=into) -> None:
                for source, target in pairs:
                    net.exchange.begin(source, sent[source], target, into[source, target])
                for source, target in pairs:
                    net.exchange.finish(source, target)
                for ops in places:
                    ops.finish()
            exchange()
            seconds = statistics.median(once(exchange)[0] for _ in range(rounds))
            rows.append({"name": f"exchange {point.layer}", "pass": direction, "bytes_each_way": nbytes, "ways": len(pairs),
                         "ms": round(1e3 * seconds, 4), "gb_per_second_each_way": round(nbytes / seconds / 1e9, 3)})
    return rows


def bench_exchange(name: str, places: list, batch: int, rounds: int) -> list[dict]:
    """Prints and returns the exchanges, and steps in turn: overlap on and off, one device, and `onegpu` on one device."""
    made = recipe_of(name)
    check_columns(made.build(made.classes), made.input, len(places))
    emulated = places[0].name().startswith("emulated")
    if emulated:
        print("emulated devices take turns on the CPU: these times say nothing about a GPU, only that everything runs")
    steps = [_contender("two devices", name, batch, places), _contender("two, no overlap", name, batch, places, overlap=False),
             _contender("one device", name, batch, places[:1])]
    if name == "paper":
        steps.append(_contender("onegpu, one device", "onegpu", batch, places[:1]))
    take_turns(steps, rounds, **(dict(pause=0.0) if emulated else dict(warm_up=3, pause=0.0, lead=2)))
    own = steps[0].result(batch)["ms"]
    copies = _copies(name, batch, places, max(3, rounds))
    print(f"\nexchanges of {name}, batch {batch}, on {', '.join(ops.name() for ops in places)}: alone, nothing beside them")
    print(f"{'':<18}{'pass':<7}{'MB each way':>12}{'ms':>10}{'GB/s':>8}{'% of the step':>15}")
    for row in copies:
        row["share_of_step"] = round(row["ms"] / own, 5)
        print(f"{row['name']:<18}{row['pass']:<7}{row['bytes_each_way'] / 1e6:>12.2f}{row['ms']:>10.4g}"
              f"{row['gb_per_second_each_way']:>8.3g}{100 * row['share_of_step']:>15.2f}")
    rows = []
    print(f"\nwhole steps, {rounds} rounds, contenders in turn; the paper: two GPUs took slightly less time than the half network on one")
    print(f"{'':<22}{'ms/step':>9}{'images/s':>10}{'time / two devices':>20}")
    for entry in steps:
        row = {**entry.result(batch), "ratio": round(paired_ratio(entry, steps[0]), 3)}
        rows.append(row)
        print(f"{row['name']:<22}{row['ms']:>9.4g}{row['images_per_second']:>10.1f}{row['ratio']:>20.2f}   {row['note']}")
    return [{"what": "exchange", "recipe": name, "batch": batch, "rounds": rounds, "emulated": emulated, "rows": copies},
            {"what": "exchange steps", "recipe": name, "batch": batch, "rounds": rounds, "emulated": emulated, "rows": rows}]
