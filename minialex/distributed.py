"""Data parallel over processes: each rank learns from its share of every batch, and gradients are summed (docs/PARALLEL.md).

    mpiexec -n 4 python -m minialex train ...

`world()` is what this process belongs to: Single, or Mpi where a launcher started several.  Everything that differs between ranks goes
through it; nets and optimisers know nothing of ranks.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from .memory import Arena
from .spec import BackendUnavailable, MiniAlexError

SLICE = 1 << 21                     # numbers an all-reduce: 8 MB stay in the caches, where one call for all of them is three times slower
SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "WORLD_SIZE")
LAST_WORDS = 0.5                    # seconds for the guardians to say which rank failed, before the launcher stops listening
T = TypeVar("T")
E = TypeVar("E", bound=BaseException)


def launched() -> int:
    """How many ranks the launcher started, from the environment; 1 without one.  (SLURM_NTASKS and SLURM_PROCID are there in the shell of
    a SLURM job too, where srun has started nothing yet.)"""
    for name in SIZES:
        if os.environ.get(name, "").isdecimal():
            return max(1, int(os.environ[name]))
    return 1


def my_devices(device: str, local_rank: int, local_size: int) -> str:
    """What of --device belongs to one of the ranks of a machine.

    A list is dealt out in equal consecutive parts; one cpu, reference or emulated device serves all.  Raises MiniAlexError."""
    names = device.split(",")
    if local_size == 1 or (len(names) == 1 and device.partition(":")[0] != "cuda"):
        return device
    if len(names) % local_size:
        raise MiniAlexError(f"--device {device}: {len(names)} device{'s' * (len(names) > 1)} cannot be dealt out equally to the "
                            f"{local_size} ranks of this machine; name one for each, such as "
                            f"--device {','.join(f'cuda:{k}' for k in range(local_size))}, or start fewer ranks")
    each = len(names) // local_size
    return ",".join(names[local_rank * each:(local_rank + 1) * each])


def everywhere(error: E) -> E:
    """Marks an error that every rank raises at the same place: one of them says it, and none has to end the others."""
    error.everywhere = True
    return error


def check_batch(batch: int, size: int) -> None:
    """Refuses a batch that cannot be shared equally."""
    if batch % size:
        raise MiniAlexError(f"-b {batch}: a batch cannot be shared equally by {size} ranks; "
                            f"give -b {max(1, batch // size) * size}, or start another number of ranks")


class Single:
    """One process: sums are what they are."""

    rank = local_rank = 0
    size = local_size = 1
    name = "one process"

    def add(self, values: np.ndarray) -> np.ndarray:
        """The sums of a few float64 numbers over all ranks."""
        return values

    def meet(self, places: list) -> None:
        """Prepares sums of arrays on these devices, before anything is allocated there."""

    def sum_(self, arena: Arena, zero: bool = False) -> None:
        """Replaces the numbers of `arena` by their sums over all ranks; `zero`: this one has nothing to add."""

    def from_root(self, value: T) -> T:
        """Rank 0's value."""
        return value

    def every(self, value: T) -> list[T]:
        """Each rank's value, in the order of ranks."""
        return [value]

    def compare(self, fields: dict[str, Any], but: tuple[str, ...] = ()) -> None:
        """Raises MiniAlexError, the same on each rank, where ranks differ in a field, but those named."""

    def staged(self, function: Callable[[], T]) -> T:
        """Calls a function that writes files where they are missing: first rank 0, then the first rank of each machine, then all."""
        return function()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What one rank raises inside, all raise behind it; rank 0 says it."""
        yield

    def way_back(self, text: str) -> None:
        """What a user should read when a rank has died."""

    def abort(self, status: int) -> None:
        """Ends all ranks."""


class Mpi(Single):
    """The ranks of MPI.COMM_WORLD.  Arrays on NVIDIA GPUs are summed by NCCL; those of the emulator, and of GPUs with MINIALEX_NCCL=0, by
    MPI in the host's memory."""

    def __init__(self, comm: Any = None):
        try:
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:
            raise BackendUnavailable(f"{launched()} ranks were started, but mpi4py or its MPI library is missing: "
                                     f"pip install -e '.[mpi]' ({str(error).splitlines()[0]})") from error
        self._mpi, self._comm = MPI, comm or MPI.COMM_WORLD
        self.rank, self.size = self._comm.rank, self._comm.size
        if self.size != launched():
            raise BackendUnavailable(f"the launcher started {launched()} ranks, but mpi4py's MPI sees {self.size}: they are of different "
                                     f"MPI installations; use the mpiexec beside {sys.executable}")
        local = self._comm.Split_type(MPI.COMM_TYPE_SHARED)
        self.local_rank, self.local_size = local.rank, local.size
        self.name = f"{self.size} ranks"
        self._nccl: dict[int, Nccl] = {}                        # one for each place of a network
        self._guardian = self._guard()

    # ---------------------------------------------------------------- numbers
    def add(self, values: np.ndarray) -> np.ndarray:
        total = np.empty_like(values)
        self._comm.Allreduce(values, total, op=self._mpi.SUM)
        return total

    def meet(self, places: list) -> None:
        if os.environ.get("MINIALEX_NCCL") != "0":
            self._nccl = {id(ops): Nccl(self, ops) for ops in places if hasattr(getattr(ops, "memory", None), "xp")}

    def sum_(self, arena: Arena, zero: bool = False) -> None:
        if zero:
            arena.ops.from_host(np.zeros(arena.size, arena.dtype), out=arena.flat)
        if id(arena.ops) in self._nccl:
            self._nccl[id(arena.ops)].sum_(arena.flat)
            return
        for start in range(0, arena.size, SLICE):
            part = arena.flat[start:start + SLICE]
            if isinstance(part, np.ndarray):
                self._comm.Allreduce(self._mpi.IN_PLACE, part, op=self._mpi.SUM)
                continue
            host = arena.ops.to_host(part)
            self._comm.Allreduce(self._mpi.IN_PLACE, host, op=self._mpi.SUM)
            arena.ops.from_host(host, out=part)

    def from_root(self, value: T) -> T:
        return self._comm.bcast(value)

    def every(self, value: T) -> list[T]:
        return self._comm.allgather(value)

    # ---------------------------------------------------------------- agreement
    def compare(self, fields: dict[str, Any], but: tuple[str, ...] = ()) -> None:
        text = {key: str(value) for key, value in fields.items() if key not in but}
        digest = hashlib.sha256(json.dumps(text, sort_keys=True).encode()).digest()
        if len(set(self.every(digest))) == 1:
            return
        every = self.every(text)
        for rank, theirs in enumerate(every):
            if differing := [key for key in text if theirs.get(key) != every[0].get(key)]:
                what = ", ".join(f"{key} {theirs.get(key)} (rank 0: {every[0].get(key)})" for key in differing)
                raise everywhere(MiniAlexError(f"the ranks disagree: rank {rank} of {self.size} has {what}; start all with "
                                               "the same command, version and data"))

    def staged(self, function: Callable[[], T]) -> T:
        stage, result = 0 if self.rank == 0 else 1 if self.local_rank == 0 else 2, None
        for turn in range(3):
            with self.together():
                if turn == stage:
                    result = function()
        return result

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        mine: BaseException | None = None
        try:
            yield
        except (MiniAlexError, OSError) as error:
            mine = error
        errors = self.every(None if mine is None else str(mine))
        if any(error is not None for error in errors):
            first = next(rank for rank, error in enumerate(errors) if error is not None)
            if mine is not None and errors[self.rank] == errors[0]:
                raise everywhere(mine)
            raise everywhere(MiniAlexError(f"rank {first}: {errors[first]}")) from mine

    # ---------------------------------------------------------------- the end of a rank
    def _guard(self) -> subprocess.Popen | None:
        """Starts this rank's guardian; without one a death is only the launcher's to tell."""
        hosts = self.every(socket.gethostname())
        token = self._comm.bcast(uuid.uuid4().hex)
        address = "127.0.0.1" if len(set(hosts)) == 1 else ""
        script = Path(__file__).with_name("guardian.py")
        command = [sys.executable, "-S", "-E", script, str(self.rank), str(self.size), token, str(os.getpid()), address]
        try:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE if self.rank == 0 else None,
                                       start_new_session=True)
        except OSError:
            process = None
        port = self._comm.bcast(process.stdout.readline().decode().strip() if self.rank == 0 and process else None)
        if process is None or not port:
            return None
        if self.rank:
            self._tell(process, f"hub {'127.0.0.1' if hosts[self.rank] == hosts[0] else hosts[0]} {port}")
        atexit.register(lambda: (self._tell(process, "bye"), process.stdin.close()))
        return process

    @staticmethod
    def _tell(process: subprocess.Popen | None, line: str) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            process.stdin.write(f"{line}\n".encode())
            process.stdin.flush()

    def way_back(self, text: str) -> None:
        self._tell(self._guardian, f"say {text}")

    def abort(self, status: int) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._tell(self._guardian, "failed")
        time.sleep(LAST_WORDS)
        self._comm.Abort(status)


class Nccl:
    """Sums of arrays on GPUs, one rank on each: NCCL through CuPy, MPI carries its 128-byte name alone.

    Written after the signatures of cupy.cuda.nccl and not run yet on two GPUs (docs/PARALLEL.md).
    """

    def __init__(self, world: Single, ops: Any):
        os.environ.setdefault("NCCL_NVLS_ENABLE", "0")          # sums inside the switch are not the same bits from run to run
        import cupy
        from cupy.cuda import nccl
        if not nccl.available:
            raise BackendUnavailable("NCCL is missing, which sums arrays of several GPUs: pip install -e '.[nccl13]' (or nccl12), "
                                     "or set MINIALEX_NCCL=0 to sum in the host's memory")
        self._library, self._memory = nccl, ops.memory
        place = f"{socket.gethostname()} {cupy.cuda.runtime.deviceGetPCIBusId(ops.memory.device)}"
        if twice := [name for name, count in Counter(world.every(place)).items() if count > 1]:
            raise everywhere(MiniAlexError(f"several ranks share the GPU {twice[0]}: NCCL takes one rank on each; name one for each, such "
                                           "as --device cuda:0,cuda:1, or set MINIALEX_NCCL=0 to sum in the host's memory"))
        name = world.from_root(nccl.get_unique_id() if world.rank == 0 else None)
        with ops.memory.current():
            self._communicator = nccl.NcclCommunicator(world.size, name, world.rank)

    def sum_(self, flat: Any) -> None:
        """In place, in the stream that computes."""
        address, library = flat.data.ptr, self._library
        with self._memory.current():
            self._communicator.allReduce(address, address, flat.size, library.NCCL_FLOAT32, library.NCCL_SUM, self._memory.stream())


def joined() -> bool:
    """Whether this process has met other ranks."""
    return bool(world.cache_info().currsize) and world().size > 1


@cache
def world() -> Single:
    """What this process belongs to; the first call starts MPI where a launcher started several ranks."""
    return Mpi() if launched() > 1 else Single()
