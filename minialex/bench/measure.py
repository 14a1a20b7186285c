"""Honest timing: contenders take turns, round by round, in one process; what is printed says how much it scattered."""

from __future__ import annotations

import gc
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

PAUSE = 0.25                # seconds between contenders: a library's threads may spin a while after their work


@dataclass
class Contender:
    """Something that takes the same step as the others; `note` says how it does it."""

    name: str
    note: str
    step: Callable[[], None]
    wall: list[float] = field(default_factory=list)         # seconds of each timed step
    cpu: list[float] = field(default_factory=list)          # processor seconds of all threads in it
    waits: list[int] = field(default_factory=list)          # how often one of them gave its processor up in it, to wait for another

    def result(self, images: int) -> dict:
        """Medians and extremes in ms a step and images a second; `waits`: voluntary context switches of a step."""
        ms = sorted(1e3 * seconds for seconds in self.wall)
        median = statistics.median(ms)
        return {"name": self.name, "note": self.note, "ms": round(median, 3), "ms_min": round(ms[0], 3), "ms_max": round(ms[-1], 3),
                "ms_per_image": round(median / images, 4), "images_per_second": round(1e3 * images / median, 2),
                "cpu_ms": round(1e3 * statistics.median(self.cpu), 3), "waits": round(statistics.median(self.waits)), "steps": len(ms)}


def once(step: Callable[[], None]) -> tuple[float, float]:
    """(wall seconds, processor seconds of all threads) of one step."""
    cpu, wall = time.process_time(), time.perf_counter()
    step()
    return time.perf_counter() - wall, time.process_time() - cpu


def take_turns(contenders: list[Contender], rounds: int, warm_up: int = 1, pause: float = PAUSE, lead: int = 0) -> None:
    """One step of each contender a round, so that a busy spell of the machine meets all of them; every other round in reverse.

    lead : untimed steps right before each timed one; a GPU that waited has lowered its clock"""
    gc.collect()
    for contender in contenders:
        for _ in range(warm_up):
            contender.step()
    for number in range(rounds):
        for contender in contenders if number % 2 == 0 else reversed(contenders):
            time.sleep(pause)
            for _ in range(lead):
                contender.step()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
            wall, cpu = once(contender.step)
            contender.wall.append(wall)
            contender.cpu.append(cpu)
            contender.waits.append(resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before)


def paired_ratio(other: Contender, own: Contender) -> float:
    """Median over rounds of other's time / own time: above 1, own is faster."""
    return statistics.median(a / b for a, b in zip(other.wall, own.wall, strict=True))


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes.

    Linux: VmHWM; getrusage there also counts what the parent held before this program replaced its copy."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def commit() -> str | None:
    """The commit of the package's own folder, "-dirty" where files of it differ; outside a repository MINIALEX_COMMIT, or None."""
    folder = Path(__file__).resolve().parent
    try:
        name = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no", "--", str(folder.parent)], cwd=folder,
                                 capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("MINIALEX_COMMIT") or None
    return name + ("-dirty" if changed else "")


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def environment(ops, arguments: list[str], **versions: str) -> dict:
    """Where and how a result came about: everything needed to repeat it."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "command": " ".join(["python -m minialex.bench", *arguments]), "commit": commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": processor(), "processors": processors,
        **({"devices": ops.kernels.devices()} if hasattr(ops, "kernels") else {}),
        "workers": ops.workers(), "load_average": [round(load, 2) for load in os.getloadavg()],
        "versions": {"python": platform.python_version(), "numpy": np.__version__, **versions},
        "blas": getattr(ops, "blas_reason", "as the library decides") or "one thread for each worker",
        "malloc": {name: value for name, value in os.environ.items() if name.startswith("MALLOC_")},
    }
