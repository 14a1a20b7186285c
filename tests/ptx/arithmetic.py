"""What the arithmetic instructions do, on arrays with one element per lane: rule(instruction) -> (types, function)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .program import Instruction

TYPES = {"pred": np.dtype(np.bool_), "f32": np.dtype(np.float32), "f64": np.dtype(np.float64)}
TYPES.update((f"{kind}{bits}", np.dtype(f"{letter}{bits // 8}")) for kind, letter in ("uu", "bu", "si") for bits in (8, 16, 32, 64))
WIDER = {"u16": "u32", "s16": "s32", "u32": "u64", "s32": "s64"}
COMPARE = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
           "lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal}
FUNCTIONS = {"sqrt": np.sqrt, "rsqrt": lambda x: 1 / np.sqrt(x), "rcp": lambda x: 1 / x, "ex2": np.exp2, "lg2": np.log2,
             "sin": np.sin, "cos": np.cos, "tanh": np.tanh}
ROUND = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}
SIMPLE = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}
# Modifiers that do not change the value here: rounding to nearest is what NumPy does, an approximation is exact.
IGNORED = {"rn", "approx", "full", "lo"}


def bf16_bits(value: np.ndarray) -> np.ndarray:
    """float32 -> the 16 bits of bfloat16, to nearest even, every NaN as 0x7fff."""
    bits = value.view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(value), 0x7FFF, rounded).astype(np.uint32)


def tf32_bits(value: np.ndarray) -> np.ndarray:
    """float32 -> the word whose upper 19 bits are tf32, halves away from zero; infinities and NaNs stay."""
    bits = value.view(np.uint32)
    return np.where(np.isfinite(value), (bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000), bits)


def fused(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """a b + c rounded once to float32.  The product is exact in float64; its sum with c is rounded to odd, so the second
    rounding, to float32, sees on which side of a tie the exact sum lies."""
    product, c = a.astype(np.float64) * b, c.astype(np.float64)
    total = product + c
    part = total - product
    error = (product - (total - part)) + (c - part)
    bits = total.view(np.int64)
    to_odd = np.isfinite(total) & (error != 0) & (bits & 1 == 0)
    return (bits + np.where(to_odd, np.where((error > 0) == (total > 0), 1, -1), 0)).view(np.float64).astype(np.float32)


def extreme(pick: Callable, signs: Callable) -> Callable:
    """min or max of floats: the number where the other is NaN, and -0 below +0."""
    def function(a, b):
        result = pick(a, b)
        bits = f"u{result.itemsize}"
        return np.where(a == b, signs(a.view(bits), b.view(bits)).view(result.dtype), result)
    return function


def divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Integers: towards zero, all ones where b is 0 as NVIDIA's GPUs answer.  Floats: IEEE."""
    if a.dtype.kind == "f":
        return a / b
    safe = np.where(b == 0, np.ones_like(b), b)
    quotient = np.floor_divide(a, safe)
    if a.dtype.kind == "i":
        quotient += ((quotient < 0) & (quotient * safe != a)).astype(quotient.dtype)
    return np.where(b == 0, ~np.zeros_like(quotient), quotient)


def multiply_high(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    bits = 8 * a.itemsize
    if bits == 32:
        wide = np.dtype(f"{a.dtype.kind}8")
        return (a.astype(wide) * b.astype(wide) >> 32).astype(a.dtype)
    both = np.broadcast_arrays(a, b)
    high = [int(x) * int(y) >> bits for x, y in zip(*both, strict=True)]                # 64 bits: Python's own integers
    return np.array([value & (2**bits - 1) for value in high], np.uint64).view(a.dtype)


def shift(left: bool) -> Callable:
    """By more than the width: all bits leave, or only the sign stays."""
    def function(value, amount):
        bits = 8 * value.itemsize
        within = np.minimum(amount, bits - 1).astype(value.dtype)
        if left:
            return np.where(amount >= bits, 0, value << within).astype(value.dtype)
        moved = value >> within
        return moved if value.dtype.kind == "i" else np.where(amount >= bits, 0, moved).astype(value.dtype)
    return function


def convert(source: str, target: str, opcode: tuple[str, ...]) -> Callable:
    kind, goal = TYPES[source].kind, TYPES[target]
    rounding = next((ROUND[word] for word in opcode if word in ROUND), None)
    if kind == "f" and goal.kind in "iu":
        low, high = np.iinfo(goal).min, np.iinfo(goal).max

        def to_integer(value):                                     # out of range saturates, NaN becomes 0
            exact = rounding(value.astype(np.float64))
            inside = np.clip(exact, float(low), np.nextafter(float(high) + 1, 0) if high > 2**53 else float(high))
            return np.where(exact > high, high, np.where(np.isnan(exact), 0, inside).astype(goal)).astype(goal)
        return to_integer
    if rounding:
        return lambda value: rounding(value).astype(goal)
    if "sat" in opcode and goal.kind == "f":
        return lambda value: np.where(np.isnan(value), 0, np.clip(value, 0, 1)).astype(goal)
    return lambda value: value.astype(goal)


def bit_field(value: np.ndarray, start: np.ndarray, length: np.ndarray) -> np.ndarray:
    """bfe: through Python's integers, since nvcc emits it rarely."""
    bits, signed, result = 8 * value.itemsize, value.dtype.kind == "i", []
    for word, first, count in zip(*(part.tolist() for part in np.broadcast_arrays(value, start & 255, length & 255)), strict=True):
        field = word >> min(first, bits) & (1 << min(count, bits)) - 1      # a negative word's sign comes in from the left, as wanted
        negative = signed and count and word >> min(first + count - 1, bits - 1) & 1
        result.append(field - (1 << min(count, bits)) if negative else field)
    return np.array(result, value.dtype)


def insert_field(field: np.ndarray, into: np.ndarray, start: np.ndarray, length: np.ndarray) -> np.ndarray:
    """bfi: the lowest `length` bits of `field` in place of those of `into` from `start` on."""
    bits, result = 8 * into.itemsize, []
    parts = np.broadcast_arrays(field, into, start & 255, length & 255)
    for new, word, first, count in zip(*(part.tolist() for part in parts), strict=True):
        mask = (1 << count) - 1 << first & (1 << bits) - 1
        result.append(word & ~mask | new << first & mask)
    return np.array(result, into.dtype)


def funnel(opcode: tuple[str, ...]) -> Callable:
    """shf: 64 bits, `low` below `high`, shifted; left gives the upper word, right the lower one."""
    def function(low, high, amount):
        amount = (amount & 31 if "wrap" in opcode else np.minimum(amount, 32)).astype(np.uint64)
        both = high.astype(np.uint64) << np.uint64(32) | low
        return ((both << amount) >> np.uint64(32) if "l" in opcode else both >> amount).astype(np.uint32)
    return function


def permute(low: np.ndarray, high: np.ndarray, selector: np.ndarray) -> np.ndarray:
    both, result = high.astype(np.uint64) << np.uint64(32) | low, np.uint32(0)
    for byte in range(4):
        nibble = selector >> np.uint32(4 * byte) & np.uint32(15)
        chosen = (both >> (nibble & np.uint32(7)).astype(np.uint64) * np.uint64(8) & np.uint64(255)).astype(np.uint32)
        chosen = np.where(nibble & 8, np.where(chosen & 128, 255, 0), chosen).astype(np.uint32)     # the sign, spread
        result = result | chosen << np.uint32(8 * byte)
    return result


def logic3(a: np.ndarray, b: np.ndarray, c: np.ndarray, table: np.ndarray) -> np.ndarray:
    result, table = np.zeros_like(a), int(table[0])
    for row in range(8):
        if table >> row & 1:
            result = result | (a if row & 4 else ~a) & (b if row & 2 else ~b) & (c if row & 1 else ~c)
    return result


def count_leading_zeros(value: np.ndarray) -> np.ndarray:
    bits, count = 8 * value.itemsize, np.zeros(value.shape, np.uint32)
    for bit in range(bits):                                                             # grows while every bit above is zero
        count += (value >> value.dtype.type(bits - 1 - bit) == 0).astype(np.uint32)
    return count


def reverse_bits(value: np.ndarray) -> np.ndarray:
    bits = np.unpackbits(np.ascontiguousarray(value).view(np.uint8).reshape(-1, value.itemsize), axis=1, bitorder="little")
    return np.packbits(bits[:, ::-1], axis=1, bitorder="little").view(value.dtype).ravel()


def compare(instruction: Instruction, name: str, t: str) -> Callable:
    unordered = name not in COMPARE and name[-1:] == "u" and name[:-1] in COMPARE
    if name in ("num", "nan"):
        return lambda a, b: (np.isnan(a) | np.isnan(b)) == (name == "nan")
    base = COMPARE.get(name[:-1] if unordered else name)
    if base is None:
        raise instruction.error("no such comparison")
    if TYPES[t].kind != "f" or (not unordered and name != "ne"):
        return base
    if unordered:
        return lambda a, b: base(a, b) | np.isnan(a) | np.isnan(b)
    return lambda a, b: base(a, b) & ~(np.isnan(a) | np.isnan(b))


def set_predicate(instruction: Instruction, opcode: tuple[str, ...], t: str):
    """setp, also with a third predicate that is joined: setp.lt.and.s32 p, a, b, c."""
    test = compare(instruction, opcode[1], t)
    if len(opcode) == 2:
        return [t, t], test
    join = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}[opcode[2]]
    return [t, t, "pred"], lambda a, b, c: join(test(a, b), c)


def flush(value: np.ndarray) -> np.ndarray:
    """Subnormal numbers become zeros of their sign, as .ftz asks."""
    if value.dtype != np.float32:
        return value
    return np.where(np.abs(value) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), value), value)


def plain_rule(instruction: Instruction, opcode: tuple[str, ...], t: str):
    """([type of the result, types of the operands], function) of an instruction whose flags `rule` has taken off."""
    name, kind = opcode[0], TYPES[t].kind
    if name in ("add", "sub"):
        return [t, t, t], np.add if name == "add" else np.subtract
    if name in ("mul", "mad"):
        if "wide" in opcode:
            wide = TYPES[WIDER[t]]
            types, product = [WIDER[t], t, t], lambda a, b: a.astype(wide) * b.astype(wide)
        else:
            types, product = [t, t, t], multiply_high if "hi" in opcode else np.multiply
        return (types, product) if name == "mul" else ([*types, types[0]], lambda a, b, c: product(a, b) + c)
    if name == "fma" and t == "f32":
        return [t] * 4, fused
    if name == "fma" and t == "f64":                                                    # not rounded once, but far closer than float32
        return [t] * 4, lambda a, b, c: (a.astype(np.longdouble) * b + c).astype(np.float64)
    if name == "div":
        return [t, t, t], divide
    if name == "rem":
        return [t, t, t], lambda a, b: np.where(b == 0, a, np.fmod(a, np.where(b == 0, 1, b).astype(b.dtype)))
    if name in SIMPLE:
        return [t, t, t], SIMPLE[name]
    if name == "not":
        return [t, t], np.invert
    if name in ("neg", "abs"):
        return [t, t], np.negative if name == "neg" else np.abs
    if name in ("min", "max"):
        if kind != "f" or "NaN" in opcode:
            return [t, t, t], np.minimum if name == "min" else np.maximum
        return [t, t, t], extreme(np.fmin, np.bitwise_or) if name == "min" else extreme(np.fmax, np.bitwise_and)
    if name in ("shl", "shr"):
        return [t, t, "u32"], shift(name == "shl")
    if name == "shf":
        return ["b32"] * 3 + ["u32"], funnel(opcode)
    if name == "selp":
        return [t, t, t, "pred"], lambda a, b, p: np.where(p, a, b)
    if name in FUNCTIONS:                                                               # through float64: nearer than any GPU's
        return [t, t], lambda x: FUNCTIONS[name](x.astype(np.float64)).astype(x.dtype)
    if name == "copysign":
        return [t, t, t], lambda a, b: np.copysign(b, a)
    if name == "sad":
        return [t] * 4, lambda a, b, c: np.where(a > b, a - b, b - a) + c
    if name == "popc":
        return ["u32", t], lambda x: np.bitwise_count(x).astype(np.uint32)
    if name == "clz":
        return ["u32", t], count_leading_zeros
    if name == "brev":
        return [t, t], reverse_bits
    if name == "bfe":
        return [t, t, "u32", "u32"], bit_field
    if name == "bfi":
        return [t, t, t, "u32", "u32"], insert_field
    if name == "prmt":
        return ["b32"] * 4, permute
    if name == "lop3":
        return ["b32"] * 5, logic3
    if name == "testp":
        tests = {"finite": np.isfinite, "infinite": np.isinf, "notanumber": np.isnan, "number": lambda x: ~np.isnan(x)}
        return ["pred", t], tests[opcode[1]]
    raise instruction.error("the interpreter knows no such instruction")


def rule(instruction: Instruction) -> tuple[list[str], Callable]:
    """([type of the result, then of each operand], function of the operands' arrays)."""
    opcode = instruction.opcode
    try:
        if opcode[0] == "cvt":
            if "bf16x2" in opcode and opcode[-1] == "f32":
                return ["b32", "f32", "f32"], lambda high, low: bf16_bits(high) << np.uint32(16) | bf16_bits(low)
            if opcode[-2] == "bf16":
                return ["b16", "f32"], lambda x: bf16_bits(x).astype(np.uint16)
            if opcode[1:] == ("rna", "tf32", "f32"):
                return ["b32", "f32"], tf32_bits
            source, target = opcode[-1], opcode[-2]
            known = IGNORED | {"ftz", "sat"} | set(ROUND)
            types, function = [target, source], convert(source, target, opcode)
            t, name = source, opcode
        else:
            t = opcode[-1]
            name = tuple(word for word in opcode[:-1] if word != "ftz" and (opcode[0] == "setp" or word not in IGNORED))
            known = IGNORED | {"ftz", "hi", "wide", "NaN", "l", "r", "wrap", "clamp"} | set(COMPARE) | {c + "u" for c in COMPARE} \
                | {"num", "nan", "and", "or", "xor", "finite", "infinite", "notanumber", "number"}
            if opcode[0] == "setp":
                operands, function = set_predicate(instruction, name, t)
                types = ["pred", *operands]
            else:
                types, function = plain_rule(instruction, name, t)
    except (KeyError, IndexError) as unknown:
        raise instruction.error(f"the interpreter does not know {unknown} here") from None
    words = opcode[1:-2] if opcode[0] == "cvt" else opcode[1:-1]
    if strange := set(words) - known:
        raise instruction.error(f"the interpreter does not know the modifier {', '.join(sorted(strange))}")
    if "ftz" not in words:
        return types, function
    inner = function

    def flushed(*operands):
        return flush(np.asarray(inner(*(flush(x) for x in operands))))
    return types, flushed
