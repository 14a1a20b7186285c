"""Targets, floors, the ladder of variants and what was measured, from what is committed: writes docs/PERFORMANCE.md and its pictures.

    python -m minialex.bench.page [--results benchmarks/results] [--out docs/PERFORMANCE.md] [--launches]

--launches writes benchmarks/results/launches_paper.json again first, which takes the emulator and 1 GB.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator
from pathlib import Path

from ..figures import performance
from ..files import write, write_json
from . import floors, launched
from .found import Table, latest, tables
from .ladder import GPUS, README, ROOT, Step, committed, ideas
from .targets import CLASS, TARGETS, Known

WHY = "not measured: no GPU was at hand"
UP = "../"                                                          # from the page to the top
NOTHING = "No kernel has run on a GPU: every time of a GPU below is a floor or a prediction and named as one."
MEASURED = "Times of a GPU are measured where a row says so, else floors or predictions and named as such."
ARCHS = ("80", "90", "100")
PEERS = ("torch idiomatic", "torch best eager", "torch compiled", "plain numpy")
CPU_TARGETS = (("paper", 32, "torch best eager", 1.0, "ahead"), ("paper", 128, "torch best eager", 1.0, "ahead"),
               ("paper", 32, "torch idiomatic", 1.4, "1.4 times"), ("paper", 128, "torch idiomatic", 1.4, "1.4 times"),
               ("paper", 32, "torch compiled", 1.0, "level"), ("paper", 128, "torch compiled", 1.0, "level"),
               ("cifar18", 128, "torch best eager", 0.9, "0.9 times"))


def _prose(text: str) -> list[str]:
    """A paragraph as lines."""
    return [*textwrap.wrap(" ".join(text.split()), 140, break_long_words=False, break_on_hyphens=False), ""]


def _rows(head: str, rows: list[str]) -> list[str]:
    """A table: names of columns, right-aligned where they begin with >."""
    names = head.split(" | ")
    return ["| " + " | ".join(name.lstrip(">") for name in names) + " |",
            "|" + "|".join("--:" if name.startswith(">") else "---" for name in names) + "|", *rows, ""]


def _targets(known: Known) -> list[str]:
    rows = []
    for target in TARGETS:
        unknown = f"{WHY}; `tests/gpu_check.sh {target.stages} summary page`" if target.stages else "nothing to time"
        figure = target.measured(known) or unknown
        rows.append(f"| {target.what} | {target.goal} | {target.behind} | {target.evidence(known)} | {figure} |")
    gpus = sorted({f"{table.gpu}, {table.where['date']}, commit {str(table.where['commit'])[:12]}, {table.file}: `{table.where['command']}`"
                   for table in known.found if table.gpu})
    return ["## Targets on a Hopper GPU", "",
            *_prose("""Ratios of one run on one GPU; recipe `paper`, dropout and update included, random data. `tests/gpu_check.sh speed`
                    fills every row and writes this page; cut short by `BUDGET=SECONDS`, it goes on where it was when asked again."""),
            *_rows("target | goal | floor or peer behind it | what is known without a GPU | measured", rows),
            *([f"- {gpu}" for gpu in gpus] + [""] if gpus else [])]


def _on_the_cpu(found: list[Table], what: str = "step") -> list[Table]:
    return [table for table in found if table.table["what"] == what and "devices" not in table.where
            and "--device" not in table.where["command"]]


def _counting(found: list[Table]) -> list[Table]:
    """What counts for the goals: freed memory is kept, and each processor has a worker."""
    return [table for table in found if table.where["malloc"] and table.where["workers"] == table.where["processors"]]


def _why_short(found: list[Table]) -> list[str]:
    """What the CIFAR-10 network lacks, from its step with all workers, with one, and its ops one by one."""
    peer, steps = "torch best eager", _on_the_cpu(found)
    all_, one = (latest([table for table in steps if table.row(peer) and accepted(table)], "step", recipe="cifar18")
                 for accepted in (lambda table: table.where["workers"] > 1, lambda table: table.where["workers"] == 1))
    ops = latest(_on_the_cpu(found, "ops"), "ops", recipe="cifar18")
    if not (all_ and one and ops):
        return []
    own, alone = all_.table["rows"][0], one.table["rows"][0]
    behind = sorted((row for row in ops.table["rows"] if row.get("peer_ms")), key=lambda row: row["peer_ms"] - row["ms"])[:6]
    names = ", ".join(f"{row['layer']} {row['op']} {row['ms']:.1f} ms ({row['peer_ratio']:.2f})" for row in behind)
    return _prose(f"""What the CIFAR-10 network lacks: NumPy makes a trip through memory of each small step of an op, and short calls of
                  two workers wait for the interpreter's lock: {own['waits']} waits a step (voluntary context switches), {alone['waits']}
                  with one worker. The second worker makes a step {alone['ms'] / own['ms']:.2f} times faster, PyTorch's second thread
                  {one.row(peer)['ms'] / all_.row(peer)['ms']:.2f} times. With one of each the step has {one.row(peer)['ratio']:.2f} of
                  PyTorch's speed. The ops furthest behind PyTorch's, cold caches, its time / ours in brackets ({ops.file}): {names}.""")


def _cpu(found: list[Table]) -> list[str]:
    steps, lines = _on_the_cpu(found), []
    rows = []
    for recipe, batch, peer, goal, word in CPU_TARGETS:
        having = [table for table in _counting(steps) if table.row(peer)]
        table = latest(having, "step", recipe=recipe, batch=batch)
        ratio = table.row(peer)["ratio"] if table else None
        said = "not measured" if ratio is None else f"{ratio:.2f}, {'met' if ratio >= goal else 'not met'}"
        rows.append(f"| {recipe}, batch {batch} | {peer} | {word} | {said} | {table.file if table else ''} |")
    lines += _rows("network | peer | goal | measured: its time / ours | file", rows)
    rows = []
    for table in steps:
        where, own = table.where, table.table["rows"][0]
        ratios = [f"{row['ratio']:.2f}" if row else "-" for row in map(table.row, PEERS)]
        cells = [where["date"][:10], str(where["commit"])[:10], table.table["recipe"], table.table["batch"], where["workers"],
                 "tuned" if where["malloc"] else "default", f"{own['ms_per_image']:.2f}", *ratios, table.table["rounds"],
                 where["load_average"][0], table.file]
        rows.append(f"| {' | '.join(map(str, cells))} |")
    machines = sorted({f"{where['processors']} cores of an {where['processor']}, NumPy "
                       f"{where['versions']['numpy']}, PyTorch {where['versions'].get('torch', 'none')}"
                       for where in (table.where for table in steps)})
    commands = dict.fromkeys(f"- {table.file}: `{table.where['command']}`" for table in (*steps, *_on_the_cpu(found, "ops")))
    return ["## The CPU beside PyTorch", "",
            *_prose(f"""Float32, `--device cpu`, contenders taking turns in one process; a figure of a peer is the median over rounds of
                    (its time / ours): above 1 MiniAlex is faster. {'; '.join(machines)}. The allocator is PyTorch's gain: "tuned" keeps
                    freed memory in the process. The last tuned run with a worker for each processor counts for the
                    goals."""), *lines,
            *_why_short(found),
            *_rows("date | commit | network | >batch | >workers | allocator | >ours, ms an image | "
                   + "".join(f">{peer} | " for peer in PEERS) + ">rounds | >load | file", rows),
            "![Images a second beside PyTorch](performance/cpu_steps.png)", "", *commands, ""]


def _floors() -> list[str]:
    machine = floors.H200
    lines = ["## Floors", "",
             *_prose("""What a training step takes at least: for each kernel the longer of its bytes at the copy bandwidth (each array once,
                     caches count for nothing) and its products at the rate of their unit. **Computed, not measured**, from the recipe's
                     layers (minialex/bench/floors.py). "launched" is this program as it is: its calls, its fusions, its arrays; "unfused"
                     and "fused" are arithmetic: every layer a kernel, and all that can be on the way out of a product, with numbers stored
                     in its precision."""),
             f"- copy {machine.copy / 1e12:.1f} TB/s: {machine.sources['copy']}"]
    lines += [f"- {name} {rate / 1e12:,.0f} TFLOP/s: {machine.sources[name]}" for name, rate in machine.products.items()]
    rows = []
    for batch in (128, 1024):
        for precision in launched.PRECISIONS:
            for way in floors.WAYS:
                step = floors.kernels("paper", batch, precision, way)
                seconds = floors.total(step, precision)
                rows.append(f"| {batch} | {precision} | {way} | {len(step)} | {sum(kernel.bytes for kernel in step) / 1e9:.2f} | "
                            f"{1e6 * seconds:,.0f} | {batch / seconds:,.0f} |")
    lines += ["", *_rows(">batch | products | way | >calls | >GB | >us | >images/s", rows),
              "![Under the roofline](performance/roofline.png)", "", "![Steps at their floors](performance/floors.png)", "",
              "The calls of a step in bf16 at batch 128, as launched today:", ""]
    rows = []
    for kernel in floors.kernels("paper", 128, "bf16", "launched"):
        times = " | ".join(f"{1e6 * kernel.seconds(machine, precision):,.0f}" for precision in machine.products)
        rows.append(f"| {kernel.layer} | {kernel.what} | {kernel.bytes / 1e6:,.1f} | {kernel.flop / 1e9:,.2f} | "
                    f"{kernel.intensity:,.1f} | {times} | {kernel.bound(machine, 'bf16')} |")
    times = " | ".join(f">us, {precision}" for precision in machine.products)
    return lines + _rows(f"layer | what | >MB | >GFLOP | >operations a byte | {times} | waits in bf16 for", rows)


def _timed(known: Known, step: Step) -> dict[str, dict]:
    """layer -> the row of a GPU's table of ops for this variant."""
    table = known.gpu("ops", recipe="paper", batch=known.recorded["batch"])
    return {row["layer"]: row for row in table.table["rows"] if (row["op"], row["variant"]) == (step.op, step.variant) and "ms" in row} \
        if table else {}


def _rung(known: Known, step: Step) -> str:
    held = {arch: step.held(arch) for arch in ARCHS}
    registers = [str(step.compiled.registers.get(arch, "-")) if step.compiled else "-" for arch in ARCHS]
    tile = step.compiled.tile if step.compiled else None
    cells = []
    for shape in step.shapes:
        where = f"{shape.layers}: "
        if shape.refused or not held["90"][0]:
            cells.append(where + "refused")
            continue
        text = f"{shape.waves(CLASS, held['90'][0]):.1f} waves, {shape.share(CLASS, held['90'][0]):.0%}"
        cells.append(where + (f"**{text}**" if shape.chosen else text))
    timed = _timed(known, step)
    times = "; ".join(f"{layer} {1e3 * row['ms']:,.0f} us, {row['share_of_floor']:.0%} of its floor"
                      + (f", PyTorch {row['peer_ratio']:.2f}" if "peer_ratio" in row else "") for layer, row in timed.items())
    head = f"| `{step.variant}` | {step.precision} | {'x'.join(map(str, tile)) if tile else '-'} | "
    if not step.threads:
        return head + "- | - | - | - | " + "; ".join(cells) + " | not measured |"
    fits = " / ".join(str(held[arch][0] or "-") for arch in ARCHS)
    return head + " | ".join([str(step.threads), " / ".join(registers), f"{step.shared:,}", f"{fits}, {held['90'][1]}", "; ".join(cells),
                              times or "not measured"]) + " |"


def _ladder(known: Known) -> Iterator[str]:
    said = ideas(README.read_text())
    yield from ["## The ladder", "", *_prose(
        f"""Every variant of every op that `paper` calls, also those that lose, at its shapes and batch {known.recorded['batch']}. Registers
        are the compiler's (sm_80 / sm_90 / sm_100), threads and dynamic shared memory those of the launches the emulator captured, blocks
        on a multiprocessor follow from them, with what allows no more on sm_90. "Waves": blocks over what the {CLASS.multiprocessors}
        multiprocessors of an {CLASS.name} hold at once; the percentage is the share of the device that padding of tiles and the last wave
        leave, the most that a variant can reach of its floor **by this arithmetic alone**. Bold: chosen there for its precision. The first
        kernel of a variant counts; what adds up its parts comes after.""")]
    ops = dict.fromkeys(step.op for step in known.steps)
    for op in ops:
        rows = [_rung(known, step) for step in known.steps if step.op == op]
        yield from [f"### {op}", "", f"{said.get(op, '')}.", "",
                    *_rows("variant | precision | tile | >threads | >registers | >shared bytes | >blocks held | waves, share | time", rows)]


def _others(known: Known) -> list[str]:
    rows = []
    for gpu in GPUS.values():
        lacking = ", ".join(f"`{step.op}` {step.variant}" for step in known.steps if step.shared > gpu.shared_block)
        rows.append(f"| sm_{gpu.arch} | {gpu.name} | {gpu.multiprocessors} | {gpu.shared_block // 1024} | {lacking or 'none'} |")
    return ["## Other GPUs", "",
            *_prose("""The choice looks at shapes and at how much shared memory a block may have. A variant that wants more is passed over:
                    the next of its precision runs, with the same bits. tests/test_choice.py holds that for these GPUs, and that from 16 to
                    192 multiprocessors no other tile would, by padding and whole waves, fill a device twice as well as the chosen one. No
                    figure of these GPUs was measured either."""),
            *_rows("architecture | such as | >multiprocessors | >KiB of a block | variants without room", rows)]


def page(known: Known) -> str:
    """docs/PERFORMANCE.md as text."""
    said = MEASURED if any(table.gpu for table in known.found) else NOTHING
    lines = ["# Performance: targets, floors, variants, and what was measured", "",
             *_prose(f"""Written by `python -m minialex.bench.page` from `benchmarks/results/`, the recipe's layers and the compiler's
                     report in [cuda/README.md]({UP}cuda/README.md); do not edit. {said}"""),
             *_targets(known), *_cpu(known.found), *_floors(), *_ladder(known), *_others(known),
             "## How it is measured", "",
             *_prose("""`tests/gpu_check.sh speed` on a machine with a GPU: whole steps and every variant of every op beside PyTorch, as
                     CUDA graphs, medians of rounds in turn, cold caches, each row compared with the float64 oracle before it is timed. On
                     the CPU `python -m minialex.bench --batch 32,128 --peer torch --best --json benchmarks/results/cpu_step_NAME.json`,
                     and with `--recipe cifar18 --batch 128`. The JSON files in `benchmarks/results/` are read; `python -m
                     minialex.bench.page` then writes this page again.""")]
    return "\n".join(lines)


def _kind(layer: str, what: str) -> str:
    if what == "update" or "relu" in what:
        return "update" if what == "update" else "light"
    return next((kind for kind in ("conv", "fc") if layer.startswith(kind)), "light")


def _label(kernel: floors.Kernel) -> str:
    return kernel.what if kernel.what == kernel.layer else f"{kernel.layer} {kernel.what}"


def _products(known: Known, step: list[floors.Kernel]) -> list[performance.Point]:
    """The fastest variant measured in bf16 of each product of a step."""
    table, points = known.gpu("ops", recipe="paper", batch=128), []
    for kernel in step:
        times = [row["ms"] for row in table.table["rows"] if "ms" in row and (row["layer"], row["precision"]) == (kernel.layer, "bf16")
                 and row["op"].endswith(f"_{kernel.what}")] if table and kernel.product else []
        if times:
            rate = 1e3 * kernel.flop / min(times)
            points.append(performance.Point(_label(kernel), _kind(kernel.layer, kernel.what), kernel.intensity, rate, True))
    return points


def draw(known: Known, folder: Path) -> list[Path]:
    """The pictures of the page."""
    machine, folder = floors.H200, Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    steps = {way: floors.kernels("paper", 128, "bf16", way) for way in floors.WAYS}
    points = [performance.Point(_label(kernel), _kind(kernel.layer, kernel.what), kernel.intensity,
                                kernel.flop / kernel.seconds(machine, "bf16")) for kernel in steps["launched"] if kernel.flop]
    timed = _products(known, steps["launched"])
    said = "filled: measured" if timed else "nothing measured"
    performance.roofline(points + timed, machine.copy, machine.products, folder / "roofline.png",
                         title=f"bf16, batch 128, as launched: where arithmetic puts each kernel at its floor on an H200 ({said})")
    panels = [(f"{way}, {len(step)} calls", [(kernel.layer, _kind(kernel.layer, kernel.what), kernel.seconds(machine, "bf16"))
                                             for kernel in step]) for way, step in steps.items()]
    performance.made_up(panels, folder / "floors.png", title="A step of paper in bf16 at batch 128, each kernel at its floor: "
                        "predicted from bytes and operations, not measured")
    panels = []
    cpu = _counting(_on_the_cpu(known.found))
    for recipe, batch in sorted({(table.table["recipe"], table.table["batch"]) for table in cpu}, key=lambda key: (key[0] != "paper", key)):
        of = [table for table in cpu if (table.table["recipe"], table.table["batch"]) == (recipe, batch)]
        entries = []
        for table in (of[0], of[-1])[len(of) == 1:]:
            for row in table.table["rows"]:
                own = row["name"].startswith("minialex")
                label = f"{row['name']}, {table.where['date'][:10]}" if own or table is of[-1] else ""
                if label:
                    entries.append((label, own, row["images_per_second"], 1e3 * batch / row["ms_max"], 1e3 * batch / row["ms_min"]))
        panels.append((f"{recipe}, batch {batch}", entries))
    if panels:
        performance.contenders(panels, folder / "cpu_steps.png",
                               title="The CPU: medians and extremes; MiniAlex before and now, peers of the last run")
    return sorted(folder.glob("*.png"))


def known_of(results: Path) -> Known:
    """Everything the page is made from.  Raises MiniAlexError where the recorded launches are missing."""
    return Known(tables(results), *committed())


def main() -> None:
    parser = argparse.ArgumentParser(description="Write docs/PERFORMANCE.md and its pictures.")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results", help="folder of measured results")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/PERFORMANCE.md", help="the page; pictures in performance/ beside it")
    parser.add_argument("--launches", action="store_true", help="capture the launches again first")
    asked = parser.parse_args()
    if asked.launches:
        write_json(ROOT / launched.RESULT, launched.record("paper", 128))
    known = known_of(asked.results)
    write(asked.out, page(known))
    pictures = draw(known, asked.out.parent / "performance")
    print(f"{asked.out}: written, with {len(pictures)} pictures")


if __name__ == "__main__":
    main()
