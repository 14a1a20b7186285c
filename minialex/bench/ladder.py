"""What can be said of every variant of every op without running it: how many of its blocks a multiprocessor holds, how its grid fills the
device, how much of its tiles is padding.  From the compiler's report (cuda/README.md) and the captured launches (bench/launched.py)."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

from ..spec import MiniAlexError
from .launched import RESULT

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "cuda" / "README.md"
KIB = 1024


@dataclass(frozen=True)
class Gpu:
    """What limits the blocks on a multiprocessor (CUDA programming guide, compute capabilities)."""

    arch: str
    name: str
    multiprocessors: int
    threads: int                        # on a multiprocessor
    blocks: int
    shared: int                         # bytes of a multiprocessor
    shared_block: int                   # bytes that one block may ask for
    registers: int = 65536


GPUS = {gpu.arch: gpu for gpu in (
    Gpu("80", "A100", 108, 2048, 32, 164 * KIB, 163 * KIB), Gpu("86", "RTX A6000", 84, 1536, 16, 100 * KIB, 99 * KIB),
    Gpu("89", "RTX 4090", 128, 1536, 24, 100 * KIB, 99 * KIB), Gpu("90", "H200", 132, 2048, 32, 228 * KIB, 227 * KIB),
    Gpu("100", "B200", 148, 2048, 32, 228 * KIB, 227 * KIB), Gpu("120", "RTX 5090", 170, 1536, 24, 100 * KIB, 99 * KIB))}


def blocks_held(gpu: Gpu, registers: int, threads: int, shared: int) -> tuple[int, str]:
    """(blocks of a kernel on one multiprocessor, what allows no more): registers go to warps in portions of 256, four warps at a time,
    shared memory in portions of 128 bytes after 1 KiB of the system's for each block."""
    warps = -(-threads // 32)
    if not 0 < threads <= 1024 or shared > gpu.shared_block or not 0 < registers <= 255:
        return 0, "does not fit"
    portions = -(-registers * 32 // 256) * 256
    limits = {"registers": gpu.registers // portions // 4 * 4 // warps, "threads": gpu.threads // 32 // warps,
              "shared memory": gpu.shared // (-(-(shared + KIB) // 128) * 128), "blocks": gpu.blocks}
    least = min(limits.values())
    return least, next(what for what, count in limits.items() if count == least)


@dataclass(frozen=True)
class Compiled:
    """One row of the compiler's report: the most registers of its instances on each architecture."""

    file: str
    name: str
    registers: dict[str, int]
    shared: int                         # static bytes

    @property
    def base(self) -> str:
        """The function's name alone."""
        return self.name.partition("<")[0].rpartition("::")[2]

    @property
    def words(self) -> list[str]:
        return re.findall(r"[\w]+", self.name.partition("<")[2])

    @property
    def tile(self) -> tuple[int, int] | None:
        """Rows and columns of a block's tile of a product."""
        found = re.search(r"(\d+)x(\d+)", self.name.partition("<")[2])
        return (int(found[1]), int(found[2])) if found else None


def report(text: str) -> list[Compiled]:
    """The rows of the table of cuda/README.md."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if re.match(r"\| \w+ \| `", line)]
    head = next((line for line in text.splitlines() if line.startswith("| file |")), "")
    archs = re.findall(r"sm_(\w+)", head)
    return [Compiled(file, name.strip("`"), {arch: int(cell.rpartition("-")[2]) for arch, cell in zip(archs, cells, strict=False)},
                     int(re.match(r"\d+", cells[len(archs)])[0])) for file, name, _, *cells in lines]


# The side of the tile of variants whose names do not say it.
TILES = {"narrow": "32x64", "wide": "128x128", "tiled": "64x64"}


def compiled_of(rows: list[Compiled], op: str, variant: str, precision: str, kernel: str) -> Compiled | None:
    """The row of the report for a launched kernel; None where none fits, or several of which the names do not decide."""
    base, stem = kernel.rpartition("::")[2], op.rpartition("_")[0]
    found = [row for row in rows if row.base == base]
    units = {"TF32", "BF16", "BF16X3", "BF16X6"}
    of = [row for row in found if {word.upper() for word in row.words} & units == ({precision.upper()} & units)]
    found = of or ([] if precision != "float32" else found)
    own = [row for row in found if f"{row.file}_".startswith(f"{stem}_")]
    found = own or found
    side = re.search(r"\d+x\d+$", variant)
    wanted = side[0] if side else TILES.get(variant, "128x128" if any(row.tile for row in found) else "")
    words = {"vector": "Quad", "direct": "float"}
    for keep in (lambda row: wanted in row.words, lambda row: words.get(variant) in row.words):
        found = [row for row in found if keep(row)] or found
    if not found or len({row.base for row in found}) > 1:
        return None
    most = {arch: max(row.registers[arch] for row in found) for arch in found[0].registers}
    return Compiled(found[0].file, found[0].name, most, max(row.shared for row in found))


@dataclass(frozen=True)
class Shape:
    """One call at one shape by one variant."""

    layers: str
    refused: str
    launches: int
    blocks: int
    padding: float                      # share of the numbers of all tiles that are wanted
    chosen: str

    def waves(self, gpu: Gpu, held: int) -> float:
        return self.blocks / (gpu.multiprocessors * held)

    def share(self, gpu: Gpu, held: int) -> float:
        """What is left of a device's time when padding and the unfilled part of the last wave are taken off."""
        waves = self.waves(gpu, held)
        return self.padding * waves / math.ceil(waves)


@dataclass(frozen=True)
class Step:
    """One variant of one op on the ladder."""

    op: str
    variant: str
    precision: str
    kernel: str
    compiled: Compiled | None
    threads: int
    shared: int                         # static and dynamic bytes of a block
    shapes: list[Shape]

    def held(self, arch: str) -> tuple[int, str]:
        """Blocks on a multiprocessor of that architecture, and what allows no more."""
        registers = self.compiled.registers.get(arch, 0) if self.compiled else 0
        return blocks_held(GPUS[arch], registers, self.threads, self.shared)


def _product(op: str, dims: list[int]) -> tuple[int, int]:
    """Rows and columns of the product that an op is, for one group or column."""
    way = next(word for word in op.split("_") if word in ("fprop", "dgrad", "wgrad"))
    if op.startswith("conv"):
        N, _, _, H, W, C, K, R, S, P, Q, *_, groups = dims
        return {"fprop": (N * P * Q, K // groups), "dgrad": (N * H * W, C // groups),
                "wgrad": (K // groups, R * S * C // groups)}[way]
    N, _, outputs, F, K, _ = dims
    return {"fprop": (N, K // outputs), "dgrad": (N, F), "wgrad": (K // outputs, F)}[way]


def _padding(op: str, dims: list[int], tile: tuple[int, int] | None) -> float:
    if tile is None or not op.startswith(("conv", "linear")):
        return 1.0
    M, N = _product(op, dims)
    return M * N / (-(-M // tile[0]) * tile[0] * -(-N // tile[1]) * tile[1])


def ladder(recorded: dict, rows: list[Compiled]) -> list[Step]:
    """Every variant of every op of the recorded step."""
    variants: dict[tuple, list[dict]] = {}
    for row in recorded["rows"]:
        variants.setdefault((row["op"], row["variant"], row["precision"]), []).append(row)
    steps = []
    for (op, variant, precision), found in variants.items():
        ran = [row["launches"][0].split() for row in found if "launches" in row]
        kernel = ran[0][0] if ran else ""
        compiled = compiled_of(rows, op, variant, precision, kernel)
        shapes = []
        for row in found:
            first = row["launches"][0].split() if "launches" in row else ["", "0"]
            dims = [int(word) for word in row["dims"].split()]
            shapes.append(Shape(row["layers"], row.get("refused", ""), len(row.get("launches", ())), int(first[1]),
                                _padding(op, dims, compiled.tile if compiled else None), row["chosen"]))
        threads, dynamic = (max(int(words[i]) for words in ran) if ran else 0 for i in (2, 3))
        steps.append(Step(op, variant, precision, kernel, compiled, threads, dynamic + (compiled.shared if compiled else 0), shapes))
    return steps


def committed(root: Path = ROOT) -> tuple[dict, list[Step]]:
    """(the recorded launches, the ladder) from what is committed.  Raises MiniAlexError where a file is missing."""
    try:
        recorded = json.loads((root / RESULT).read_text())
        return recorded, ladder(recorded, report((root / "cuda" / "README.md").read_text()))
    except (OSError, ValueError, KeyError) as error:
        raise MiniAlexError(f"{RESULT}: no launches in it ({error!r}); write it again: python -m minialex.bench.launched") from error


def ideas(text: str) -> dict[str, str]:
    """Op -> the idea of its variants, from the map of cuda/README.md."""
    found = {}
    for line in text.partition("## Map")[2].partition("\n## ")[0].splitlines():
        if line.startswith("| `"):
            ops, _, idea, *_ = line.strip("| ").split(" | ")
            found |= dict.fromkeys(re.findall(r"`(\w+)`", ops), idea)
    return found
