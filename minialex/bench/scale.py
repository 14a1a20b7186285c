"""What preparation and training of the real set take on 1 to 64 GPUs, from measured rates: writes docs/SCALE.md.

    python -m minialex.bench.scale [--data benchmarks/results/cpu_data.json] [--out docs/SCALE.md]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..files import write
from ..spec import MiniAlexError

TRAIN, VAL, EPOCHS = 1_281_167, 50_000, 90
RAW, JPEG, ARCHIVES = 256 * 256 * 3, 21_922, 147_897_477_120 + 6_744_924_160
GPUS = (1, 2, 4, 8, 16, 32, 64)
# Images a second of one GPU in training.  None of them was measured by this project; where each comes from is printed beside it.
CONSUMERS = (
    ("two GTX 580, the paper's", 243, "90 epochs in five to six days (section 5), both GPUs together"),
    ("H200, PyTorch eager AMP", 18_000, "predicted from the arithmetic of its kernels: 17 to 19 k"),
    ("H200, this project's goal", 90_000, "predicted floor of fused bf16 kernels: 88 to 99 k at batch 128"),
)
LINKS = (("one PCIe 5 x16 link", 50e9), ("one NVMe drive", 7e9), ("a 100 Gbit/s network share", 11e9))


def _clock(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def rates_of(path: Path) -> tuple[dict[str, float], dict]:
    """(pictures a second by name, where and how they were measured).  Raises MiniAlexError."""
    try:
        found = json.loads(path.read_text())
        table = next(table for table in found["tables"] if table["what"] == "data")
        return {**table["pictures_per_second"], "workers": table["workers"]}, found["environment"]
    except (OSError, ValueError, KeyError, StopIteration) as error:
        raise MiniAlexError(f"{path}: no rates of data in it ({error!r}); measure them with "
                            f"python -m minialex.bench data --json {path}") from error


def page(rates: dict[str, float], where: dict) -> str:
    """docs/SCALE.md as text."""
    threads = rates["workers"]
    prepare = rates["prepare, two threads"] / threads
    core = {"raw": rates["loader of raw records"] / threads, "JPEG": rates["read JPEG records at random, summed"],
            "DataLoader": rates.get("PyTorch DataLoader of JPEG files", 0) / threads}
    lines = [
        "# Scale: what the real set takes, computed from measured rates", "",
        "Written by `python -m minialex.bench.scale`; do not edit. No GPU was at hand: what a GPU consumes is an assumption,",
        "named as such. What the host can deliver is measured: "
        f"`{where['command']}`, {where['date']},",
        f"{where['processors']} cores of an {where['processor']}, commit {str(where['commit'])[:12]}.", "",
        "| measured, one core | pictures/s |", "| --- | ---: |",
        f"| preparation of 500 x 375 JPEGs (with {threads} threads, divided by {threads}) | {prepare:,.0f} |",
        f"| raw records read, summed, batched (with {threads} threads, divided by {threads}) | {core['raw']:,.0f} |",
        f"| JPEG records read, summed, decoded | {core['JPEG']:,.0f} |",
        f"| crop, flip, mean and colour on the host, {threads} threads (a GPU does it there) | {rates['crop, flip, mean, colour']:,.0f} |",
    ]
    if core["DataLoader"]:
        lines.append(f"| PyTorch's DataLoader of the JPEG files, for comparison | {core['DataLoader']:,.0f} |")
    lines += ["", "## Preparation, once", "",
              f"{TRAIN + VAL:,} pictures out of {ARCHIVES / 1e9:.0f} GB of archives into {(TRAIN + VAL) * RAW / 1e9:.0f} GB of raw",
              f"records or about {(TRAIN + VAL) * JPEG / 1e9:.0f} GB of JPEG records. One process with threads; two cores are measured, "
              "more are assumed linear.", "",
              "| cores | time | archives read at | raw records written at |", "| ---: | ---: | ---: | ---: |"]
    for cores in (1, 2, 4, 8, 16, 32):
        rate = cores * prepare
        lines.append(f"| {cores} | {_clock((TRAIN + VAL) / rate)} | {rate * ARCHIVES / (TRAIN + VAL) / 1e6:,.0f} MB/s | "
                     f"{rate * RAW / 1e6:,.0f} MB/s |")
    lines += ["", "Up to 16 cores the processor limits, not a disk of 2 GB/s.", "", "## Training", "",
              "Cores: how many keep the GPUs busy when records are in memory, and when they are JPEG. One record of 196,608 bytes",
              "a picture is all that goes to a GPU; crop, flip, mean and colour are done there."]
    for name, rate, source in CONSUMERS:
        lines += ["", f"### {name}: {rate:,} images/s each", "", f"Assumed: {source}.", "",
                  "| GPUs | an epoch | 90 epochs | bytes, raw | cores, raw | cores, JPEG | cores, DataLoader |",
                  "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
        for gpus in GPUS:
            total = gpus * rate
            cores = [f"{total / core[kind]:,.1f}" if core[kind] else "-" for kind in ("raw", "JPEG", "DataLoader")]
            lines.append(f"| {gpus} | {_clock(TRAIN / total)} | {_clock(EPOCHS * TRAIN / total)} | {total * RAW / 1e9:,.2f} GB/s | "
                         f"{' | '.join(cores)} |")
    lines += ["", "Rows of several GPUs assume that steps scale; what the exchange of gradients costs stands in docs/PARALLEL.md.", "",
              "## What limits", ""]
    for name, rate, _ in CONSUMERS:
        need = rate * RAW
        limits = [f"{link} carries {speed / need:,.1f} times that" for link, speed in LINKS]
        lines.append(f"- **{name}**: {need / 1e9:,.2f} GB/s of raw records ({rate * JPEG / 1e9:,.2f} of JPEG): {', '.join(limits)}.")
    fast = CONSUMERS[-1][1]
    lines += ["",
              f"So at the paper's speed nothing limits but the GPUs. At {fast:,} images/s a GPU takes {fast * RAW / 1e9:.0f} GB/s of",
              f"raw records: only memory delivers that, so the store ({TRAIN * RAW / 1e9:.0f} GB) must be in the page cache, with "
              f"{fast / core['raw']:.0f} cores a GPU",
              f"reading and summing; from JPEG records one drive is enough, but {fast / core['JPEG']:.0f} cores a GPU decode.", "",
              "Which rank reads what is arithmetic on three numbers: no index is kept, however many pictures",
              "(tests/test_thousand.py: 14 million over 1,024 ranks).", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write docs/SCALE.md from measured rates.")
    parser.add_argument("--data", type=Path, default=Path("benchmarks/results/cpu_data.json"), help="result of bench data")
    parser.add_argument("--out", type=Path, default=Path("docs/SCALE.md"), help="the page")
    asked = parser.parse_args()
    write(asked.out, page(*rates_of(asked.data)))
    print(f"{asked.out}: written from {asked.data}")


if __name__ == "__main__":
    main()
