"""The instructions a warp executes together, on arrays (warps, 32): shuffles, votes, ldmatrix and the tensor-core products.

Fragments (PTX ISA, "Matrix fragments for mma.m16n8k8" and "... m16n8k16"): lane l is number t = l % 4 of group g = l / 4.
"""

from __future__ import annotations

import numpy as np

from .program import Instruction

LANE = np.arange(32)
G, T = LANE // 4, LANE % 4
POISON = np.uint32(0xFFFFFFFF)


def shuffle(instruction: Instruction, value, amount, clamp, present):
    """(the values, the predicates) of shfl.sync; what comes from a lane outside the mask is undefined: poison here."""
    segment, last = clamp >> 8 & 31, clamp & 31
    amount = (amount & 31).astype(np.int64)
    lowest = LANE & segment
    highest = lowest | (last & ~segment)
    source = {"bfly": LANE ^ amount, "down": LANE + amount, "up": LANE - amount,
              "idx": lowest | (amount & ~segment)}[instruction.opcode[2]]
    # For `up` the fifth bits of the clamp give the lowest lane, else the highest.
    valid = source >= highest if instruction.opcode[2] == "up" else source <= highest
    source = np.where(valid, source, LANE).clip(0, 31)
    taken = np.take_along_axis(value, source, 1)
    return np.where(np.take_along_axis(present, source, 1), taken, POISON), valid


def vote(instruction: Instruction, value, present):
    kind = instruction.opcode[2]
    if kind == "ballot":
        bits = (value & present).astype(np.uint64) << LANE.astype(np.uint64)
        return np.broadcast_to(bits.sum(1, dtype=np.uint64).astype(np.uint32)[:, None], value.shape)
    if kind not in ("any", "all"):
        raise instruction.error("the interpreter knows vote.sync.ballot, .any and .all only")
    answer = (value & present).any(1) if kind == "any" else (value | ~present).all(1)
    return np.broadcast_to(answer[:, None], value.shape)


def tf32(bits):
    """The unit reads the upper 19 bits of the register."""
    return (bits & np.uint32(0xFFFFE000)).view(np.float32)


def bf16(bits, half: int):
    return (bits << np.uint32(16) if half == 0 else bits & np.uint32(0xFFFF0000)).view(np.float32)


def mma(instruction: Instruction, a, b, c):
    """The four registers of D = A B + C; a, b, c are lists of registers, each (warps, 32)."""
    shape, layouts, kinds = instruction.opcode[3], instruction.opcode[4:6], instruction.opcode[6:]
    if layouts != ("row", "col") or len(c) != 4:
        raise instruction.error("the interpreter knows mma.sync with row and col, and four registers of C, only")
    warps = len(c[0])
    if (shape, kinds) == ("m16n8k8", ("f32", "tf32", "tf32", "f32")) and (len(a), len(b)) == (4, 2):
        left, right = np.empty((warps, 16, 8), np.float32), np.empty((warps, 8, 8), np.float32)
        for i in range(4):                          # a0 (g, t), a1 (g + 8, t), a2 (g, t + 4), a3 (g + 8, t + 4)
            left[:, G + 8 * (i % 2), T + 4 * (i // 2)] = tf32(a[i])
        for i in range(2):                          # b0 (t, g), b1 (t + 4, g)
            right[:, T + 4 * i, G] = tf32(b[i])
    elif (shape, kinds) == ("m16n8k16", ("f32", "bf16", "bf16", "f32")) and (len(a), len(b)) == (4, 2):
        left, right = np.empty((warps, 16, 16), np.float32), np.empty((warps, 16, 8), np.float32)
        for half in range(2):                       # the halves of a register are neighbours along k
            for i in range(4):
                left[:, G + 8 * (i % 2), 2 * T + half + 8 * (i // 2)] = bf16(a[i], half)
            for i in range(2):
                right[:, 2 * T + half + 8 * i, G] = bf16(b[i], half)
    else:
        raise instruction.error("the interpreter knows mma.sync for m16n8k8 tf32 and m16n8k16 bf16 only")
    product = left.astype(np.float64) @ right       # the unit's own order of sums is not documented: compare with a tolerance
    return [(c[i].view(np.float32) + product[:, G + 8 * (i // 2), 2 * T + i % 2]).astype(np.float32) for i in range(4)]


def ldmatrix(instruction: Instruction, rows):
    """The registers of ldmatrix; `rows` are the 8 x 8 matrices of 16-bit words, (warps, matrices, 8, 8)."""
    if "trans" in instruction.opcode:
        rows = rows.swapaxes(2, 3)
    rows = rows.astype(np.uint32)
    return [rows[:, m, G, 2 * T] | rows[:, m, G, 2 * T + 1] << np.uint32(16) for m in range(rows.shape[1])]
