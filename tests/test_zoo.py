"""The bug zoo: every detector of the emulator, of its access checker and of the sanitizers keeps a bug it must catch.

tests/zoo/*.cu holds the bugs, and correct programs that look like bugs.  The table below says what each of three builds makes
of them; the column `fast` is the build users have, and "right" in it means that the bug is not seen there.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import building
import pytest

ZOO = building.ROOT / "tests/zoo"
# Order of threads and blocks, mode of streams.
MODES = (("forward", "now"), ("reverse", "now"), ("random:1", "now"), ("forward", "lazy"), ("random:2", "random:3"))

SHARED, GLOBAL = "race on shared memory", "race on global memory"
BLOCKS, STREAMS = "race between blocks on global memory", "race between streams"
BARRIER, WARP, LATE = "@divergent barrier", "@__shfl_xor_sync", {"now": "right", "lazy": "wrong"}
NOT_WAITED, OVERFLOW = "asynchronous copy & was not waited for", "stack overflowed"
PEER, FREED = "is memory of device 1, which device 0 may not touch: peer access is not enabled", "is freed memory of device 0"

# bug: (fast, checker, address and undefined-behaviour sanitizers).  "right" and "wrong" are about the answer; other words must be in
# the message of an error, all of those between "&".  Behind "@" the message must hold every line marked in the source, as it
# always must in the checker's.  In a dict the words hold for an order or a mode of streams.
TABLE = {
    "missing_barrier_before_reading": ("wrong", SHARED, "wrong"),
    "missing_barrier_before_next_tile": ("wrong", SHARED, "wrong"),
    "lockstep_assumed": ("wrong", SHARED, "wrong"),
    "sum_without_atomics": ("right", GLOBAL, "right"),
    "sum_without_atomics_between_blocks": ("right", BLOCKS, "right"),
    "overlapping_tiles": ("right", BLOCKS, "right"),
    "blocks_assumed_in_order": ({"forward": "right", "reverse": "wrong"}, BLOCKS, "right"),
    "atomic_read_plainly": ("wrong", GLOBAL, "wrong"),
    "shared_read_past_end": ("wrong", "lie in no shared array", "@index 64 out of bounds"),
    "shared_write_past_end": ("past the end of shared array tile", "lie in no shared array", "@index 64 out of bounds"),
    "dynamic_shared_past_end": ("past the end of dynamic shared memory", "lie in no shared array", "@use-after-poison"),
    "row_overrun": ("right", "right", "@index 16 out of bounds"),
    "local_array_overrun": ("right", "right", "@index 4 out of bounds"),
    "global_read_past_end": ("wrong", "past the end of an allocation of 256 bytes", "wrong"),
    "global_write_past_end": ("past the end of an allocation", "past the end of an allocation", "past the end of an allocation"),
    "global_write_before_start": ("before the start of an allocation", "global write", "before the start of an allocation"),
    "null_pointer_written": ("a null pointer", "a null pointer", "null pointer"),
    "shared_read_before_write": ("wrong", "nobody had written these bytes", "wrong"),
    "global_read_before_write": ("wrong", "nobody has written these bytes", "wrong"),
    "accumulates_into_nothing": ("wrong", "nobody has written these bytes", "wrong"),
    "misaligned_float4": ("right", "misaligned read & no multiple of 16", "@misaligned address"),
    "misaligned_load4": ("@no multiple of 16", "no multiple of 16", "@no multiple of 16"),
    "divided_by_zero": ("divided by zero", "divided by zero", "division by zero"),
    "int_overflow": ("right", "right", "@signed integer overflow"),
    "shift_too_far": ("right", "right", "@shift exponent 32"),
    "large_local_array": (OVERFLOW, OVERFLOW, "right"),
    "infinite_recursion": (OVERFLOW, OVERFLOW, "stack-overflow"),
    "divergent_barrier": (BARRIER, BARRIER, BARRIER),
    "early_return": (BARRIER, BARRIER, BARRIER),
    "two_different_barriers": (BARRIER, BARRIER, BARRIER),
    "barrier_in_unequal_loop": (BARRIER, BARRIER, BARRIER),
    "barrier_against_shuffle": ("@deadlock", "deadlock", "@deadlock"),
    "shuffle_in_divergent_code": (WARP, WARP, WARP),
    "shuffle_from_outside_the_mask": ("wrong", "wrong", "wrong"),
    "lane_not_in_its_mask": ("@is not in its own mask 0xffff", "is not in its own mask", "@is not in its own mask"),
    "vote_after_some_returned": ("@__any_sync", "__any_sync", "@__any_sync"),
    "two_different_shuffles": (WARP, WARP, WARP),
    "deadlock": ("@deadlock, no thread can go on", "deadlock", "@deadlock"),
    "product_by_half_a_warp": ("@mma_m16n8k8_tf32", "mma_m16n8k8_tf32", "@mma_m16n8k8_tf32"),
    "product_in_divergent_code": ("@mma_m16n8k16_bf16", "mma_m16n8k16_bf16", "@mma_m16n8k16_bf16"),
    "ldmatrix_by_half_a_warp": ("@ldmatrix_x4", "ldmatrix_x4", "@ldmatrix_x4"),
    "ldmatrix_misaligned": ("@no multiple of 16", "no multiple of 16", "@no multiple of 16"),
    "ldmatrix_without_barrier": ({"forward": "wrong", "reverse": "wrong"}, SHARED, "wrong"),
    "copy_not_waited_for": ("wrong", NOT_WAITED, "wrong"),
    "copy_not_synchronised": ("wrong", SHARED, "wrong"),
    "one_group_too_few": ("wrong", NOT_WAITED, "wrong"),
    "copy_never_waited_for": ("nobody waited for", "nobody waited for", "nobody waited for"),
    "copy_misaligned": ("@no multiple of 16", "no multiple of 16", "@no multiple of 16"),
    "copy_from_past_end": ("@past the end of an allocation", "past the end of an allocation", "@past the end of an allocation"),
    "copy_to_past_end": ("@lie in no shared array", "lie in no shared array", "@lie in no shared array"),
    "copy_over_a_tile_in_use": ("right", SHARED, "right"),
    "block_of_2048_threads": ("@2048 & CUDA runs 1 to 1024", "2048", "@2048"),
    "empty_grid": ("@a grid of (0,1,1) blocks", "a grid of (0,1,1) blocks", "@a grid of (0,1,1) blocks"),
    "grid_too_tall": ("@70000 & 65535", "70000", "@70000"),
    "too_much_dynamic_shared_memory": ("@233472 bytes of dynamic shared memory", "233472", "@233472"),
    "too_much_static_shared_memory": ("array tile makes 51200 bytes & 49152", "51200", "51200"),
    "dynamic_shared_memory_too_small": ("@takes 512 bytes, the launch gives 256", "takes 512 bytes", "@takes 512 bytes"),
    "pageable_memory_as_argument": ("@argument 1 of 2 & pageable", "argument 1 of 2", "@argument 1 of 2"),
    "default_stream": ("default stream", "default stream", "default stream"),
    "stream_of_another_device": ("belongs to device 1", "belongs to device 1", "belongs to device 1"),
    "destroyed_stream": ("the stream was destroyed", "the stream was destroyed", "the stream was destroyed"),
    "released_twice": ("was released before", "was released before", "was released before"),
    "released_in_the_middle": ("not where an allocation starts", "not where an allocation starts", "not where an allocation starts"),
    "copy_past_the_end_of_an_allocation": ("260 bytes & past the end", "260 bytes & past the end", "260 bytes & past the end"),
    "argument_on_another_device": (f"@argument 1 of 2 & {PEER}", PEER, PEER),
    "table_to_another_device": (f"kernel reads_through_a_table & {PEER}", f"global read at streams.cu & {PEER}", "SEGV"),
    "host_reads_device_memory": ("the host itself touched memory", "the host itself touched memory", "SEGV"),
    "freed_memory_as_argument": (f"@argument 1 of 2 & {FREED}", FREED, FREED),
    "freed_memory_in_a_table": (f"kernel reads_through_a_table & {FREED}", f"global read at streams.cu & {FREED}", "SEGV"),
    "no_event_between_streams": (LATE, f"{STREAMS} & kernel producer & kernel consumer", LATE),
    "event_recorded_too_early": (LATE, f"{STREAMS} & kernel producer & kernel consumer", LATE),
    "event_never_recorded": ("the event was never recorded", "the event was never recorded", "the event was never recorded"),
    "buffer_reused_too_early": (LATE, f"{STREAMS} & by fill & kernel consumer", LATE),
    "two_streams_write_one_buffer": ({"now": "right", "lazy": "right"}, f"{STREAMS} & by fill & kernel producer", "right"),
    "peer_copy_before_its_producer": (LATE, f"{STREAMS} & copy between devices & kernel producer", LATE),
    "pinned_source_changed_too_early": (LATE, LATE, LATE),
    "pinned_result_read_too_early": (LATE, LATE, LATE),
}
COLUMNS = ("fast", "checker", "sanitizer")


def source_lines(kind: str) -> dict[str, list[str]]:
    """What a pattern with one group finds in the zoo's files -> "file:line" of each place."""
    found: dict[str, list[str]] = {}
    for path in sorted(ZOO.glob("*.cu")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for match in re.finditer(kind, line):
                found.setdefault(match[1], []).append(f"{path.name}:{number}")
    return found


MARKED, KERNELS = source_lines(r"// @(\w+)"), source_lines(r"__global__ void (\w+)\(")
CORRECT = sorted(source_lines(r"^CORRECT\((\w+)\)"))


def program(column: str, compiler: str, cache_folder: Path) -> Path:
    zoo, main = [ZOO / "all.cu"], [ZOO / "main.cpp"]
    sanitized = building.SANITIZED if column == "sanitizer" else ()
    parts = building.units([*building.EMULATOR, *main], "-O1", *sanitized[:1])
    if column == "checker":
        parts += building.units(building.CHECKER, "-O2") + building.units(zoo, *building.instrumented(compiler), compiler=compiler)
    else:
        parts += building.units(zoo, "-O1", *sanitized, compiler=compiler)
    return building.build(cache_folder, f"zoo-{column}-{compiler}", parts, *sanitized)


def run(path: Path, order: str, streams: str) -> dict[str, tuple[str, str]]:
    """Name -> (outcome, message) of every case."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MINIALEX_EMULATED_")}
    settings = {"MINIALEX_EMULATED_ORDER": order, "MINIALEX_EMULATED_STREAMS": streams, "MINIALEX_EMULATED_MEMORY": "1024",
                "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run([path], env={**kept, **settings}, capture_output=True, text=True, errors="replace", timeout=300)
    assert done.returncode == 0, done.stderr
    rows = (line.split("\t") for line in done.stdout.splitlines())
    return {name: (outcome, message) for name, outcome, message in rows}


@pytest.fixture(scope="session", params=["fast g++", "checker g++", "sanitizer g++", "checker clang++"])
def zoo(request, tmp_path_factory):
    """(column of the table, {mode: its results})."""
    column, compiler = request.param.split()
    building.need("g++")
    building.need(compiler)
    path = program(column, compiler, building.folder(request.config, "minialex-zoo", tmp_path_factory))
    modes = [mode for mode in MODES if column != "sanitizer" or mode[0] == "forward"]        # slow, and the answer is not its business
    return column, {mode: run(path, *mode) for mode in modes}


def expected(entry, order: str, streams: str) -> str | None:
    if isinstance(entry, str):
        return entry
    return next((entry[word] for word in (order.split(":")[0], streams.split(":")[0]) if word in entry), None)


@pytest.mark.parametrize("bug", TABLE)
def test_bug(zoo, bug):
    column, results = zoo
    for (order, streams), found in results.items():
        outcome, message = found[bug]
        want = expected(TABLE[bug][COLUMNS.index(column)], order, streams)
        place = f"{bug}, {column} build, order {order}, streams {streams}: {outcome} {message}"
        if want is None:
            continue
        if want in ("right", "wrong"):
            assert outcome == want, place
            continue
        assert outcome in ("error", "killed", "sanitizer"), place
        words = want.removeprefix("@").split(" & ")
        if bug in KERNELS and outcome == "error":
            words.append(f"kernel {bug}")
        if want.startswith("@") or column == "checker":
            words += MARKED.get(bug, [])
        assert all(word in message for word in words), f"{place}\nthe message should have {words}"


@pytest.mark.parametrize("name", CORRECT)
def test_correct_program_passes(zoo, name):
    column, results = zoo
    for mode, found in results.items():
        assert found[name] == ("right", ""), f"{name}, {column} build, {mode}: {found[name]}"


def test_table_is_the_zoo(zoo):
    """Each bug has a row, and somebody sees it: the checker or a sanitizer, or it shows in the answer."""
    _, results = zoo
    assert set(results[MODES[0]]) == set(TABLE) | set(CORRECT)
    assert len(TABLE) >= 36 and len(CORRECT) >= 6
    unseen = [bug for bug, row in TABLE.items() if all(entry == "right" for entry in row)]
    assert not unseen
