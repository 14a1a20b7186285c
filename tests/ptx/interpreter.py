"""Runs a kernel's PTX: one element of NumPy's arrays for each thread ("lane") of all blocks, the lowest program counter first.

Diverged lanes meet again where the code does.  At a barrier a block waits for all its threads, at a warp's instruction a warp for
all lanes it names.  cp.async lands as late as the ISA allows, in wait_group; unwritten memory is NaN.
"""

from __future__ import annotations

import re
import struct

import numpy as np

from . import warp
from .decode import Decoder
from .memory import Memory, Private
from .program import Instruction, Module, PtxError

READY, AT_BARRIER, AT_WARP, ENDED = range(4)
ORDERS = ("together", "warps", "warps backwards")


def argument_bytes(value, size: int, name: str) -> bytes:
    """A kernel's argument: an address or an int, a float, a NumPy scalar or the bytes of a struct."""
    if isinstance(value, bool | int):
        return int(value).to_bytes(size, "little", signed=value < 0)
    data = struct.pack("<f", value) if type(value) is float else value if isinstance(value, bytes) else value.tobytes()
    if len(data) != size:
        raise PtxError(f"parameter {name} has {size} bytes, the argument {value!r} has {len(data)}")
    return data


class Run(Decoder):
    """One launch; afterwards `memory` holds the results and `steps` counts the instructions."""

    def __init__(self, module: Module, name: str, grid, block, arguments, memory: Memory, dynamic_shared: int = 0, order: str = "together"):
        self.entry, self.memory = module.entry(name), memory
        grid, block = (tuple((*np.atleast_1d(extents).tolist(), 1, 1)[:3]) for extents in (grid, block))
        blocks, self.threads = int(np.prod(grid)), int(np.prod(block))
        self.lanes = blocks * self.threads
        lane = self.lane_numbers = np.arange(self.lanes)
        thread, self.block = lane % self.threads, lane // self.threads
        warps = -(-self.threads // 32)
        self.warp, self.lane_of_warp = self.block * warps + thread // 32, thread % 32
        self.members = np.full((blocks * warps, 32), -1)                   # lane of each place of a warp, -1: no such thread
        self.members[self.warp, self.lane_of_warp] = lane
        self.values = {"%laneid": self.lane_of_warp.astype(np.uint32), "%warpid": (thread // 32).astype(np.uint32)}
        for axis, letter in enumerate("xyz"):
            below, below_grid = int(np.prod(block[:axis])), int(np.prod(grid[:axis]))
            for register, value in (("%tid.", thread // below % block[axis]), ("%ctaid.", self.block // below_grid % grid[axis]),
                                    ("%ntid.", np.full(self.lanes, block[axis])), ("%nctaid.", np.full(self.lanes, grid[axis]))):
                self.values[register + letter] = value.astype(np.uint32)
        self.place_arrays(module, blocks, dynamic_shared)
        self.parameters = np.zeros(-(-self.entry.parameter_bytes // 16) * 16, np.uint8)
        if len(arguments) != len(self.entry.parameters):
            raise PtxError(f"{self.entry.name} has {len(self.entry.parameters)} parameters, but {len(arguments)} arguments were given")
        for (parameter, (offset, size)), value in zip(self.entry.parameters.items(), arguments, strict=True):
            self.parameters[offset:offset + size] = np.frombuffer(argument_bytes(value, size, parameter), np.uint8)
            self.symbols[parameter] = offset
        self.pc, self.state = np.zeros(self.lanes, np.int64), np.full(self.lanes, READY)
        self.committed, self.copies = np.zeros(self.lanes, np.int64), []
        self.order, self.steps = ORDERS.index(order), 0
        self.decoded = [None] * len(self.entry.code)
        with np.errstate(all="ignore"):
            self.go()

    def place_arrays(self, module: Module, blocks: int, dynamic_shared: int) -> None:
        """Addresses of the shared and local arrays; the open (extern) shared arrays all lie behind the others."""
        self.symbols, top = {}, 0
        used = set(re.findall(r"[$\w]+", " ".join(instruction.text for instruction in self.entry.code)))
        outside = {name: extent for name, extent in module.shared.items() if name in used}
        for name, (alignment, size) in ({**self.entry.shared, **outside}).items():
            if size:
                top = -(-top // alignment) * alignment
                self.symbols[name] = top
                top += size
        top = -(-top // 128) * 128 if dynamic_shared else top
        self.symbols.update((name, top) for name, (_, size) in outside.items() if not size)
        self.shared = Private("shared", blocks, top + dynamic_shared)
        top = 0
        for name, (alignment, size) in self.entry.local.items():
            top = -(-top // alignment) * alignment
            self.symbols[name] = top
            top += size
        self.local = Private("local", self.lanes, top)

    # ---- scheduling

    def go(self) -> None:
        while (ready := np.flatnonzero(self.state == READY)).size:
            if self.order:                                                 # one warp as far as it gets, to show what relies on lockstep
                of = self.warp[ready]
                ready = ready[of == (of.min() if self.order == 1 else of.max())]
            pcs = self.pc[ready]
            here = int(pcs.min())
            at = pcs == here
            self.straight(here, ready[at], len(self.entry.code) if at.all() else int(pcs[~at].min()))
        waiting = np.flatnonzero(self.state != ENDED)
        if waiting.size:
            lane = waiting[0]
            instruction = self.entry.code[self.pc[lane] - (self.state[lane] == AT_BARRIER)]
            raise instruction.error(f"deadlock: {waiting.size} threads, the first is {lane % self.threads} of block {self.block[lane]},"
                                    " wait for others that have ended or wait elsewhere")
        if self.copies:
            raise self.copies[0][-1].error("the kernel ends without waiting for its copy")

    def straight(self, pc: int, lanes: np.ndarray, stop: int) -> None:
        """Runs `lanes`, which stand at `pc`, until they part, wait, end or meet others at `stop`."""
        code, everyone = self.entry.code, lanes.size == self.lanes
        while pc < stop:
            instruction, who = code[pc], slice(None) if everyone else lanes
            if instruction.guard:
                holds = self.register(instruction.guard)[who] ^ instruction.negated
                who = who if everyone and holds.all() else lanes[holds]
            name = instruction.opcode[0]
            self.steps += 1
            if name in ("bra", "ret", "exit", "bar", "barrier", "shfl", "vote", "mma", "ldmatrix"):
                chosen = lanes if isinstance(who, slice) else who
                self.pc[lanes] = pc + 1
                if name == "bra":
                    target = self.entry.labels[instruction.operands[0]]
                    if chosen.size == lanes.size:
                        pc = target
                        continue
                    self.pc[chosen] = target
                elif name in ("ret", "exit"):
                    self.state[chosen] = ENDED
                elif name in ("bar", "barrier") and instruction.opcode[1] != "warp":
                    self.barrier(instruction, chosen)
                else:
                    self.warp_wide(instruction, pc, chosen)
                return
            if isinstance(who, slice) or who.size:
                execute = self.decoded[pc]
                if execute is None:
                    execute = self.decoded[pc] = self.decode(instruction)
                execute(who)
            pc += 1
        self.pc[lanes] = pc
        if pc >= len(code):
            self.state[lanes] = ENDED

    def barrier(self, instruction: Instruction, lanes: np.ndarray) -> None:
        if instruction.operands != ("0",) or "red" in instruction.opcode:
            raise instruction.error("the interpreter knows bar.sync 0 only")
        self.state[lanes] = AT_BARRIER
        waiting = self.state == AT_BARRIER
        full = np.bincount(self.block[waiting], minlength=int(self.block[-1]) + 1) == self.threads
        self.state[waiting & full[self.block]] = READY

    def warp_wide(self, instruction: Instruction, pc: int, lanes: np.ndarray) -> None:
        """Runs the instruction for the warps of which all lanes named have come; the others wait."""
        self.pc[lanes], self.state[lanes] = pc, AT_WARP
        lanes = np.flatnonzero((self.state == AT_WARP) & (self.pc == pc))
        warps = np.unique(self.warp[lanes])
        arrived = np.zeros((len(self.members), 32), bool)
        arrived[self.warp[lanes], self.lane_of_warp[lanes]] = True
        arrived, members = arrived[warps], self.members[warps]
        named = np.full(members.shape, True)
        if instruction.opcode[0] in ("shfl", "vote", "bar"):               # the last operand is the mask; the others are aligned: all 32
            masks = self.gather(instruction.operands[-1], "u32", members)
            mask = masks[np.arange(len(warps)), arrived.argmax(1)]
            if (arrived & (masks != mask[:, None])).any() or (arrived & (mask[:, None] >> warp.LANE & 1 == 0)).any():
                raise instruction.error("lanes of a warp give different masks, or a lane is not in its own mask")
            named = (mask[:, None] >> warp.LANE & 1).astype(bool)
        if (named & (members < 0)).any():
            raise instruction.error("names lanes that the block does not have")
        complete = ~(named & ~arrived).any(1)
        members, named = members[complete], named[complete]
        if len(members):
            self.perform(instruction, members, named)
            done = members[named]
            self.pc[done], self.state[done] = pc + 1, READY

    def perform(self, instruction: Instruction, members: np.ndarray, named: np.ndarray) -> None:
        """A warp's instruction for whole warps: `members` are their lanes, (warps, 32), `named` those that take part."""
        name, operands = instruction.opcode[0], instruction.operands

        def put(register: str, value: np.ndarray):
            self.writer(register)(members[named], np.ascontiguousarray(value[named]))

        def fragment(text: str):
            return [self.gather(register, "b32", members) for register in self.vector(text)]

        if name == "mma":
            a, b, c = (fragment(text) for text in operands[1:])
            for register, value in zip(self.vector(operands[0]), warp.mma(instruction, a, b, c), strict=True):
                put(register, value)
        elif name == "ldmatrix":
            registers = self.vector(operands[0])
            if instruction.opcode[1:4] != ("sync", "aligned", "m8n8") or f"x{len(registers)}" not in instruction.opcode:
                raise instruction.error("the interpreter knows ldmatrix.sync.aligned.m8n8 with as many registers as matrices only")
            address, offset = self.address(operands[1])
            lanes = members[:, :8 * len(registers)].ravel()                # the other lanes' addresses are not read
            cells, first = self.cells("shared", np.broadcast_to(address(lanes) + offset, lanes.shape), 2, 8, lanes, instruction)
            rows = cells.view(np.uint16)[first[:, None] + np.arange(8)].reshape(len(members), -1, 8, 8)
            for register, value in zip(registers, warp.ldmatrix(instruction, rows), strict=True):
                put(register, value)
        elif name == "shfl":
            value, amount, clamp = self.gather(operands[1], "b32", members), *(self.gather(text, "u32", members) for text in operands[2:4])
            value, valid = warp.shuffle(instruction, value, amount, clamp, named)
            target, _, predicate = operands[0].partition("|")
            put(target, value)
            if predicate:
                put(predicate, valid)
        elif name == "vote":
            put(operands[0], warp.vote(instruction, self.gather(operands[1], "pred", members), named))
