"""Reads PTX text: the entries of a module, each a list of instructions with the line they stand in."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

WIDTH = {"8": 1, "16": 2, "32": 4, "64": 8}
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.S)
ENTRY = re.compile(r"\.entry\s+([\w$]+)\s*\(([^)]*)\)[^{;]*\{")
PARAMETER = re.compile(r"\.param\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)(?:\[(\d+)\])?")
ARRAY = re.compile(r"\.(shared|local)\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)(?:\[(\d*)\])?$")
REGISTERS = re.compile(r"\.reg\s+\.(\w+)\s+(.*)$")
LABEL = re.compile(r"\s*([$\w]+):(?!:)")
STATEMENT = re.compile(r"(?:@(!?)([%$\w]+)\s+)?([\w.:]+)\s*(.*)$")
OPERAND = re.compile(r"\{[^}]*\}|\[[^\]]*\]|[^,{\[]+")


class PtxError(Exception):
    """The text cannot be read, an instruction is not known, or what it does is wrong; the message names the line."""


@dataclass(frozen=True)
class Instruction:
    line: int
    text: str
    guard: str | None           # the predicate register before the instruction
    negated: bool
    opcode: tuple[str, ...]     # "ld.global.f32" -> ("ld", "global", "f32")
    operands: tuple[str, ...]

    def error(self, what: str) -> PtxError:
        return PtxError(f"line {self.line}: {what}: {self.text}")


@dataclass
class Entry:
    name: str
    parameters: dict[str, tuple[int, int]] = field(default_factory=dict)    # name -> (offset, bytes)
    registers: dict[str, str] = field(default_factory=dict)                 # name, or prefix of "%r<9>" -> type
    shared: dict[str, tuple[int, int]] = field(default_factory=dict)        # name -> (alignment, bytes)
    local: dict[str, tuple[int, int]] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    code: list[Instruction] = field(default_factory=list)

    @property
    def parameter_bytes(self) -> int:
        return max((offset + size for offset, size in self.parameters.values()), default=0)

    def type_of(self, register: str) -> str | None:
        return self.registers.get(register) or self.registers.get(register.rstrip("0123456789") + "<>")


class Module:
    """The entries of a PTX text by name, and the shared arrays declared outside them."""

    def __init__(self, text: str):
        text = COMMENT.sub(lambda found: "\n" * found[0].count("\n"), text)
        self.entries: dict[str, Entry] = {}
        self.shared: dict[str, tuple[int, int]] = {}
        outside, position = "", 0
        for found in ENTRY.finditer(text):
            end = closing_brace(text, found.end())
            self.entries[found[1]] = read_entry(found[1], found[2], text[found.end():end], text.count("\n", 0, found.end()) + 1)
            outside, position = outside + text[position:found.start()], end
        for declaration in (outside + text[position:]).split(";"):
            if found := ARRAY.search(" ".join(declaration.split())):
                self.shared[found[4]] = array_extent(found)

    def entry(self, name: str) -> Entry:
        """The one entry of that name in the source ("relu_kernel"), or whose mangled name contains `name` ("relu_kernelILi4E")."""
        if name in self.entries:
            return self.entries[name]
        fitting = [entry for entry in self.entries if f"{len(name)}{name}" in entry] or [entry for entry in self.entries if name in entry]
        if len(fitting) != 1:
            raise PtxError(f"{len(fitting)} entries are called {name}, not one; there are {', '.join(sorted(self.entries))}")
        return self.entries[fitting[0]]


def closing_brace(text: str, start: int) -> int:
    depth = 1
    for found in re.compile("[{}]").finditer(text, start):
        depth += 1 if found[0] == "{" else -1
        if depth == 0:
            return found.start()
    raise PtxError("the text ends inside an entry")


def array_extent(found: re.Match) -> tuple[int, int]:
    """(alignment, bytes); the extent of an extern array is open, that is 0 here."""
    size = WIDTH[found[3][1:]]
    return int(found[2] or size), size * (int(found[5] or 0) if found[5] is not None else 1)


def read_entry(name: str, parameters: str, body: str, line: int) -> Entry:
    entry, offset = Entry(name), 0
    for found in PARAMETER.finditer(parameters):
        size = WIDTH[found[2][1:]] * int(found[4] or 1)
        alignment = int(found[1] or size)
        offset = -(-offset // alignment) * alignment
        entry.parameters[found[3]] = (offset, size)
        offset += size
    position = 0
    while position < len(body):
        if body[position].isspace() or body[position] in "{}":      # a brace here opens or closes a scope of inline assembly
            line += body[position] == "\n"
            position += 1
        elif found := LABEL.match(body, position):
            entry.labels[found[1]] = len(entry.code)
            position = found.end()
        else:
            end = body.find(";", position)
            if end < 0:
                raise PtxError(f"line {line}: a statement without its semicolon: {body[position:position + 80]!r}")
            read_statement(entry, " ".join(body[position:end].split()), line)
            line += body.count("\n", position, end)
            position = end + 1
    return entry


def read_statement(entry: Entry, text: str, line: int) -> None:
    if found := REGISTERS.match(text):
        for register in found[2].split(","):
            register = re.sub(r"<\d+>$", "<>", register.strip())
            if entry.registers.setdefault(register, found[1]) != found[1]:
                raise PtxError(f"line {line}: register {register} is declared twice with different types: {text}")
    elif found := ARRAY.match(text):
        getattr(entry, found[1])[found[4]] = array_extent(found)
    elif text.startswith(".pragma"):
        return
    elif (found := STATEMENT.match(text)) and not text.startswith("."):
        operands = tuple(operand.strip() for operand in OPERAND.findall(found[4]) if operand.strip())
        entry.code.append(Instruction(line, text, found[2], found[1] == "!", tuple(found[3].split(".")), operands))
    else:
        raise PtxError(f"line {line}: neither an instruction nor a known declaration: {text}")
