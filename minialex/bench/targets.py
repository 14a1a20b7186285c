"""The targets on a Hopper GPU, row by row: what is behind each, what is known without a GPU, and the figure where one was measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import floors
from .found import Table, latest
from .ladder import GPUS, Step

CLASS = GPUS["90"]
NORMS = ("lrn_maxpool_fprop", "lrn_maxpool_bprop", "maxpool_fprop", "maxpool_bprop", "relu_fprop", "relu_bprop")


@dataclass(frozen=True)
class Known:
    """All that a row may look at: measured tables, captured launches, the ladder."""

    found: list[Table]
    recorded: dict
    steps: list[Step]

    def gpu(self, what: str, **wanted) -> Table | None:
        return latest([table for table in self.found if table.gpu], what, **wanted)

    def share(self, ops: tuple[str, ...], layers: tuple[str, ...], precision: str) -> list[float]:
        """What padding and the last wave leave of the device, for each call by the variant that is chosen for it."""
        return [shape.share(CLASS, held) for step in self.steps if step.op in ops and (held := step.held("90")[0])
                for shape in step.shapes if precision in shape.chosen.split() and set(shape.layers.split(", ")) & set(layers)]


@dataclass(frozen=True)
class Target:
    """One row.  `measured` returns None where no result holds its figure."""

    what: str
    goal: str
    behind: str
    evidence: Callable[[Known], str]
    measured: Callable[[Known], str | None]
    stages: str


def us(batch: int, precision: str, way: str) -> float:
    """Microseconds of the paper's step at its floor."""
    return 1e6 * floors.total(floors.kernels("paper", batch, precision, way), precision)


def _floors(batch: int, precision: str) -> str:
    launched, fused = us(batch, precision, "launched"), us(batch, precision, "fused")
    return f"floor as launched today {launched:,.0f} us, fully fused {fused:,.0f} us ({1e6 * batch / fused:,.0f} images/s)"


def _step(known: Known, batch: int, precision: str, peers: Callable[[str], bool]) -> tuple[dict, dict] | None:
    """(own row, the fastest of the peers) of the latest step that has both."""
    for table in reversed(known.found):
        if not (table.gpu and (table.table["what"], table.table["recipe"], table.table["batch"]) == ("step", "paper", batch)):
            continue
        own = next((row for row in table.table["rows"] if row["name"].startswith("minialex") and
                    row["note"] == (precision if precision == "float32" else f"products in {precision}")), None)
        others = [row for row in table.table["rows"] if row["name"].startswith("torch") and peers(row["name"])]
        if own and others:
            return own, min(others, key=lambda row: row["ms"])
    return None


def _against(batch: int, precision: str, peers: Callable[[str], bool], floor: bool = False) -> Callable[[Known], str | None]:
    def measured(known: Known) -> str | None:
        pair = _step(known, batch, precision, peers)
        if pair is None:
            return None
        own, other = pair
        text = f"{other['ms'] / own['ms']:.2f} times {other['name']}: {own['ms']:.3f} ms ({own['images_per_second']:,.0f} images/s)"
        return text + (f", {us(batch, precision, 'fused') / 10 / own['ms']:.0f} % of an H200's fused floor" if floor else "")
    return measured


def best_rows(known: Known, ops: tuple[str, ...], layers: tuple[str, ...] | None, batch: int) -> list[dict]:
    """Of each call in bf16, or float32 where it has no products, the fastest variant that was timed."""
    table = known.gpu("ops", recipe="paper", batch=batch)
    best: dict[tuple, dict] = {}
    for row in table.table["rows"] if table else ():
        if "ms" in row and row["op"] in ops and (layers is None or row["layer"] in layers):
            key = row["layer"], row["op"]
            if row["precision"] in ("bf16",) or not row["op"].startswith("conv"):
                best[key] = min(best.get(key, row), row, key=lambda one: one["ms"])
    return list(best.values())


def _convs(layers: tuple[str, ...], batch: int, rate: bool = False) -> Callable[[Known], str | None]:
    def measured(known: Known) -> str | None:
        rows = [row for row in best_rows(known, ("conv_fprop", "conv_dgrad", "conv_wgrad"), layers, batch) if "peer_ratio" in row]
        if not rows:
            return None
        return "; ".join(f"{row['layer']} {row['op'].rpartition('_')[2]} {row['peer_ratio']:.2f}"
                         + (f" ({row['gigaflops'] / 1e3:,.0f} TFLOP/s)" if rate else "") for row in rows)
    return measured


def _norms(known: Known) -> str | None:
    rows = best_rows(known, NORMS, None, 128)
    return "; ".join(f"{row['layer']} {row['op'].rpartition('_')[2]} {row['share_of_copy']:.0%}" +
                     (f", {row['peer_ratio']:.1f} times" if "peer_ratio" in row else "") for row in rows) or None


def _columns(known: Known) -> str | None:
    table = known.gpu("exchange steps", recipe="paper")
    pair = [table.row(name) if table else None for name in ("two devices", "one device")]
    if None in pair:
        return None
    note = f" ({pair[0]['note']})"
    return f"{pair[0]['ms'] / pair[1]['ms']:.2f} times the time of one{note}"


def _shares(layers: tuple[str, ...]) -> Callable[[Known], str]:
    def evidence(known: Known) -> str:
        shares = known.share(("conv_fprop", "conv_dgrad", "conv_wgrad"), layers, "bf16")
        return (f"mma.sync kernels, groups as grid.z, no spills; padding and the last wave leave {min(shares):.0%} to {max(shares):.0%} "
                f"of the device at batch {known.recorded['batch']} (ladder below)") if shares else "not recorded"
    return evidence


def _trips(known: Known) -> str:
    trips = [kernel for kernel in floors.kernels("paper", 128, "bf16", "launched") if kernel.what in NORMS]
    return (f"{len(trips)} launches a step move {sum(kernel.bytes for kernel in trips) / 1e6:,.0f} MB: "
            f"{sum(1e6 * kernel.seconds(floors.H200, 'bf16') for kernel in trips):,.0f} us at the copy bandwidth; each array once")


def _launches(known: Known) -> str:
    chains = known.recorded["chain"]
    return "counted, not timed, in all and in the longest chain, in which each waits for the one before: " \
        + ", ".join(f"{count} and {chains[name]} in {name}" for name, count in sorted(known.recorded["launches"].items())) \
        + "; training launches them as one graph, checked on the emulator (tests/test_graph.py)"


def _split(terms: int) -> Callable[[Known], str]:
    def evidence(known: Known) -> str:
        precision = f"bf16x{terms}"
        there = "" if precision in known.recorded["launches"] else "no kernels of it yet; "
        return (f"{there}a product is {terms} in bf16: {_floors(128, precision)}; float32 SIMT: {us(128, 'float32', 'launched'):,.0f} us "
                "as launched. The error is a matter of tests, not of a GPU")
    return evidence


TARGETS = (
    Target("whole step, bf16, batch 128", "1.9 times the best PyTorch of `--peer torch --best`; 60 % of the fused floor",
           "predicted 1.3 to 1.45 ms, 88 to 99 k images/s against about 46 k",
           lambda known: _floors(128, "bf16"), _against(128, "bf16", lambda name: True, floor=True), "build step best"),
    Target("whole step, bf16, batch 1024", "1.9 times; 65 % of the fused floor", "predicted 109 to 123 k images/s against about 58 k",
           lambda known: _floors(1024, "bf16"), _against(1024, "bf16", lambda name: True, floor=True), "build large"),
    Target("whole step against idiomatic eager AMP, batch 128", "5 times", "predicted 17 to 19 k images/s of PyTorch",
           lambda known: _floors(128, "bf16"), _against(128, "bf16", lambda name: name == "torch bf16"), "build step"),
    Target("whole step, float32 storage, products of six bf16 terms", "2 times eager float32; error no worse than the SIMT kernel's",
           "predicted 18 k images/s against 7.3 k; the SIMT floor is 15.8 k", _split(6),
           _against(128, "bf16x6", lambda name: name == "torch float32"), "build step"),
    Target("whole step, float32 storage, products of three bf16 terms", "3 times eager float32; error at most 16 times the SIMT kernel's",
           "predicted 33 k images/s", _split(3), _against(128, "bf16x3", lambda name: name == "torch float32"), "build step"),
    Target("conv1, conv2, conv4, conv5, each pass, bf16", "1.3 times cuDNN", "cuDNN is weak at groups and at three channels",
           _shares(("conv1", "conv2", "conv4", "conv5")), _convs(("conv1", "conv1 in cells", "conv2", "conv4", "conv5"), 128), "build ops"),
    Target("conv3, each pass, bf16, batch 1024", "level with cuDNN; 550 TFLOP/s", "788 TFLOP/s measured matrix ceiling",
           _shares(("conv3",)), _convs(("conv3",), 1024, rate=True), "build ops1024"),
    Target("LRN, pool, ReLU, both ways, fused", "85 % of the measured copy bandwidth; 5 times PyTorch's",
           "PyTorch's LRN makes 16 passes forward, about 40 backward", _trips, _norms, "build ops"),
    Target("launches in a step", "30 or fewer, one graph, no host work between", "the fused floor has 30", _launches,
           lambda known: None, ""),
    Target("two logical devices on one GPU", "within 10 % of the grouped network", "nothing travels: the copies stay on the device",
           lambda known: "the same bits as one device on two emulated devices (tests/test_two_devices.py)", _columns, "build columns"))
