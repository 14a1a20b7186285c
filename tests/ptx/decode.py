"""What each instruction does: `Decoder.decode` turns it, once, into a function of the lanes that execute it."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

import numpy as np

from .arithmetic import TYPES, rule
from .memory import WINDOW, Memory, Private, check_aligned
from .program import Entry, Instruction, PtxError

ADDRESS = re.compile(r"\[\s*([%$\w]+)\s*(?:\+\s*(-?\w+))?\s*\]$")
CACHE = {"nc", "cg", "ca", "cs", "lu", "cv", "wb", "wt", "volatile", "relaxed", "weak", "cta", "gpu", "sys"}


def constant(text: str, kind: np.dtype) -> np.ndarray:
    """An immediate operand, as an array of one element."""
    if text.startswith(("0f", "0F")):
        return np.frombuffer(struct.pack("<I", int(text[2:], 16)), np.float32).view(kind)
    if text.startswith(("0d", "0D")):
        return np.frombuffer(struct.pack("<Q", int(text[2:], 16)), np.float64).view(kind)
    value = int(text.rstrip("U"), 0)
    if kind == np.bool_:
        return np.array([value != 0])
    return np.array([value % (1 << 8 * kind.itemsize)], f"u{kind.itemsize}").view(kind)


class Decoder:
    """The operands and instructions of one launch; Run adds the order in which lanes execute them."""

    entry: Entry
    memory: Memory
    shared: Private
    local: Private
    lanes: int
    block: np.ndarray                   # of each lane
    lane_numbers: np.ndarray            # 0, 1, 2 ...
    committed: np.ndarray               # groups of cp.async each lane has closed
    copies: list[tuple]                 # (lanes, group, to, from, bytes to read, bytes, instruction)
    values: dict[str, np.ndarray]
    symbols: dict[str, int]
    parameters: np.ndarray              # their bytes

    # ---- registers and operands

    def register(self, name: str) -> np.ndarray:
        """The bits of a register, of all lanes; read before it is written it holds ones."""
        if name not in self.values:
            kind = self.entry.type_of(name)
            if kind is None:
                raise PtxError(f"{name} is not a declared register, nor a special one that the interpreter knows")
            size = TYPES[kind].itemsize
            self.values[name] = np.zeros(self.lanes, np.bool_) if kind == "pred" else np.full(self.lanes, -1, f"i{size}").view(f"u{size}")
        return self.values[name]

    def is_register(self, text: str) -> bool:
        return text in self.values or self.entry.type_of(text) is not None

    def reader(self, text: str, kind: str) -> Callable:
        """A function of the lanes that gives an operand's value, in NumPy's type of `kind`."""
        goal = TYPES[kind]
        if text in self.symbols:
            value = np.array([self.symbols[text]]).astype(goal)
            return lambda who: value
        if text.startswith("!"):
            inner = self.reader(text[1:], kind)
            return lambda who: ~inner(who)
        if not self.is_register(text):
            value = constant(text, goal)
            return lambda who: value
        bits = self.register(text)
        if bits.dtype.itemsize == goal.itemsize:
            view = bits if goal == np.bool_ else bits.view(goal)
            return lambda who: view[who]
        return lambda who: bits[who].astype(f"u{goal.itemsize}").view(goal)

    def writer(self, text: str) -> Callable:
        """A function (lanes, value) that sets a register; narrower integers are extended by their sign, if they have one."""
        if text == "_":
            return lambda who, value: None
        bits = self.register(text)

        def write(who, value):
            if value.dtype.itemsize != bits.dtype.itemsize:
                value = value.astype(f"{value.dtype.kind}{bits.dtype.itemsize}")
            bits[who] = value if bits.dtype == np.bool_ else np.ascontiguousarray(value).view(bits.dtype)
        return write

    def vector(self, text: str) -> list[str]:
        return [part.strip() for part in text.strip("{} ").split(",")]

    def address(self, text: str) -> tuple[Callable, int]:
        found = ADDRESS.match(text)
        if not found:
            raise PtxError(f"{text} is no address that the interpreter can read")
        base, offset = found[1], int(found[2] or "0", 0)
        if base not in self.symbols and self.register(base).dtype.itemsize == 4:           # 32-bit: an address in shared memory
            narrow = self.reader(base, "u32")
            return (lambda who: narrow(who).astype(np.int64)), offset
        return self.reader(base, "s64"), offset

    def gather(self, text: str, kind: str, members: np.ndarray) -> np.ndarray:
        """An operand's value at each place of warps; what stands at an empty place means nothing."""
        return np.broadcast_to(self.reader(text, kind)(members.ravel()), members.size).reshape(members.shape)

    # ---- instructions

    def decode(self, instruction: Instruction) -> Callable:
        """A function of the lanes that executes the instruction."""
        name, operands = instruction.opcode[0], instruction.operands
        if name in ("ld", "st"):
            return self.decode_memory(instruction)
        if name == "cp":
            return self.decode_copy(instruction)
        if name in ("membar", "fence"):
            return lambda who: None
        if name == "trap":
            def trap(who):
                raise instruction.error(f"thread {int(self.lane_numbers[who][0])} of the grid stops the kernel")
            return trap
        if name == "mov":
            return self.decode_move(instruction)
        if name == "cvta":
            space, back = instruction.opcode[-2], instruction.opcode[1] == "to"
            shift = np.int64(WINDOW.get(space, 0) * (-1 if back else 1))
            read, write = self.reader(operands[1], "s64"), self.writer(operands[0])
            return lambda who: write(who, read(who) + shift)
        kinds, function = rule(instruction)
        if len(operands) != len(kinds):
            raise instruction.error(f"{len(kinds)} operands expected, not {len(operands)}")
        reads = [self.reader(text, kind) for text, kind in zip(operands[1:], kinds[1:], strict=True)]
        goal = TYPES[kinds[0]]
        if "|" in operands[0]:                                             # setp p|q: q is the opposite
            first, second = (self.writer(text.strip()) for text in operands[0].split("|"))

            def both(who):
                value = function(*(read(who) for read in reads))
                first(who, value)
                second(who, ~value)
            return both
        write = self.writer(operands[0])
        return lambda who: write(who, np.asarray(function(*(read(who) for read in reads))).astype(goal, copy=False))

    def decode_move(self, instruction: Instruction) -> Callable:
        (target, source), kind = instruction.operands, instruction.opcode[1]
        if source.startswith("{"):                                         # the parts of a vector, lowest first, become one register
            parts = self.vector(source)
            part = f"b{8 * TYPES[kind].itemsize // len(parts)}"
            reads, write = [self.reader(text, part) for text in parts], self.writer(target)
            return lambda who: write(who, np.stack(np.broadcast_arrays(*(read(who) for read in reads)), 1).view(TYPES[kind]).ravel())
        read = self.reader(source, kind)
        if target.startswith("{"):
            writes = [self.writer(text) for text in self.vector(target)]
            part = TYPES[f"b{8 * TYPES[kind].itemsize // len(writes)}"]

            def split(who):
                parts = np.ascontiguousarray(read(who)).view(part).reshape(-1, len(writes))
                for i, write in enumerate(writes):
                    write(who, parts[:, i].copy())
            return split
        write = self.writer(target)
        return lambda who: write(who, read(who))

    def decode_memory(self, instruction: Instruction) -> Callable:
        load = instruction.opcode[0] == "ld"
        words = [word for word in instruction.opcode[1:-1] if word not in CACHE and not re.match(r"L[12]::|v[24]$", word)]
        if words not in ([], ["global"], ["shared"], ["local"], ["param"]):
            raise instruction.error("the interpreter does not know this form")
        space, kind = (words or ["generic"])[0], TYPES[instruction.opcode[-1]]
        place, value = instruction.operands[::-1] if load else instruction.operands
        registers = self.vector(value)
        name, offset = ADDRESS.match(place).groups() if space == "param" else ("", None)
        if name in self.entry.parameters:                                  # else a register holds the address of a parameter's member
            start = self.symbols[name] + int(offset or 0)
            data = self.parameters[start:start + kind.itemsize * len(registers)].copy().view(kind)
            writes = [self.writer(text) for text in registers]
            return lambda who: [write(who, data[i:i + 1]) for i, write in enumerate(writes)]
        address, offset = self.address(place)
        count, size = len(registers), kind.itemsize
        if load:
            writes = [self.writer(text) for text in registers]

            def load_them(who):
                cells, first = self.cells(space, address(who) + offset, size, count, who, instruction)
                cells = cells.view(kind)
                values = [cells[first + i] for i in range(count)]
                for write, data in zip(writes, values, strict=True):
                    write(who, data)
            return load_them
        reads = [self.reader(text, instruction.opcode[-1]) for text in registers]

        def store_them(who):
            cells, first = self.cells(space, address(who) + offset, size, count, who, instruction)
            cells = cells.view(kind)
            for i, read in enumerate(reads):
                cells[first + i] = read(who)
        return store_them

    def cells(self, space: str, addresses: np.ndarray, size: int, count: int, who, instruction: Instruction):
        """(the memory's bytes, the index of each lane's first element of `size` bytes) of accesses to `count` neighbours."""
        addresses = np.broadcast_to(addresses, self.block[who].shape)
        check_aligned(addresses, size * count, instruction)
        if space == "generic":
            space = next((name for name, window in reversed(WINDOW.items()) if addresses.min() >= window), "global")
            addresses = addresses - WINDOW.get(space, 0)
        if space == "param":
            return self.parameters, addresses // size
        if space == "global":
            return self.memory.bytes, self.memory.offsets(addresses, size * count, instruction) // size
        private, rows = (self.shared, self.block) if space == "shared" else (self.local, self.lane_numbers)
        return private.bytes, private.offsets(rows[who], addresses, size * count, instruction) // size

    # ---- asynchronous copies

    def decode_copy(self, instruction: Instruction) -> Callable:
        opcode, operands = instruction.opcode, instruction.operands
        if opcode[:2] != ("cp", "async"):
            raise instruction.error("the interpreter knows no such instruction")
        if opcode[2] == "commit_group":
            return lambda who: np.add.at(self.committed, self.lane_numbers[who], 1)
        if opcode[2] in ("wait_group", "wait_all"):
            newest = int(operands[0]) if opcode[2] == "wait_group" else -1
            return lambda who: self.land(self.lane_numbers[who], newest)
        if opcode[2:5] not in (("ca", "shared", "global"), ("cg", "shared", "global")):
            raise instruction.error("the interpreter does not know this form")
        (to, to_offset), (source, source_offset), size = self.address(operands[0]), self.address(operands[1]), int(operands[2])
        if size not in ((16,) if opcode[2] == "cg" else (4, 8, 16)):
            raise instruction.error("there is no such size")
        read_size = self.reader(operands[3] if len(operands) > 3 else operands[2], "u32")

        def issue(who):
            lanes = self.lane_numbers[who]
            targets, sources, valid = (np.broadcast_to(value, lanes.shape).astype(np.int64) for value in (
                to(who) + to_offset, source(who) + source_offset, read_size(who)))
            check_aligned(sources, size, instruction)
            if (valid > size).any():
                raise instruction.error(f"more than {size} bytes are to be read")
            self.copies.append((lanes, self.committed[lanes], targets, sources, valid, size, instruction))
            self.cells("shared", targets, size, 1, who, instruction)
        return issue

    def land(self, waiting: np.ndarray, newest: int) -> None:
        """Ends the copies of all but each waiting lane's `newest` closed groups; -1: also those in no closed group."""
        waits = np.zeros(self.lanes, bool)
        waits[waiting] = True
        left = []
        for lanes, group, targets, sources, valid, size, instruction in self.copies:
            now = waits[lanes] & (group < self.committed[lanes] - newest)
            if now.any():
                self.copy(lanes[now], targets[now], sources[now], valid[now], size, instruction)
            if not now.all():
                left.append((lanes[~now], group[~now], targets[~now], sources[~now], valid[~now], size, instruction))
        self.copies = left

    def copy(self, lanes, targets, sources, valid, size: int, instruction: Instruction) -> None:
        data, byte = np.zeros((lanes.size, size), np.uint8), np.arange(size)
        for length in np.unique(valid[valid > 0]):                         # the bytes beyond become zero, and are not read
            these = valid == length
            start = self.memory.offsets(sources[these], int(length), instruction)
            data[these, :length] = self.memory.bytes[start[:, None] + byte[:length]]
        start = self.shared.offsets(self.block[lanes], targets, size, instruction)
        self.shared.bytes[start[:, None] + byte] = data
