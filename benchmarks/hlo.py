"""Counts instructions and bytes in the text of a compiled program."""

import collections
import dataclasses
import math
import re

__all__ = ["count", "moved_bytes"]

INSTRUCTION = re.compile(r"^\s+(ROOT )?%(\S+) = (\(.*?\)|\S+) ([\w-]+)\(([^)]*)\)(.*)$")
COMPUTATION = re.compile(r"^(ENTRY )?%(\S+) \(")
SHAPE = re.compile(r"\b(pred|bf16|[sufc]\d+)\[([\d,]*)\]")
FREE = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all"}
"""Instructions that move nothing."""
PARTS = {"dynamic-slice", "slice", "gather"}
"""Instructions that read no more of their first operand than they give."""


@dataclasses.dataclass(frozen=True)
class _Instruction:
    root: bool
    name: str
    bytes: int
    kind: str
    operands: list[str]
    rest: str


def count(text: str, kind: str) -> int:
    """How often an instruction, such as "while" or "fusion", occurs in the text."""
    return sum(i.kind == kind for block in _parse(text)[0].values() for i in block)


def moved_bytes(text: str) -> float:
    """Bytes that all instructions read and write, with every pass of every loop.

    A fusion reads its operands and writes its result once. Of an array that is sliced or updated in place, only the
    part counts. Branches of a condition do not count, and a loop counts once if the program does not state its passes;
    a training step has neither.
    """
    computations, entry = _parse(text)
    totals: dict[str, float] = {}

    def total(name: str) -> float:
        if name not in totals:
            block = computations[name]
            sizes = {i.name: i.bytes for i in block}
            totals[name] = sum(moved(i, sizes) for i in block)
        return totals[name]

    def moved(i: _Instruction, sizes: dict[str, int]) -> float:
        if i.kind in FREE:
            return 0
        if i.kind == "while":
            passes = re.search(r'"known_trip_count":\{"n":"(\d+)"', i.rest)
            return (int(passes[1]) if passes else 1) * total(_called(i, "body"))
        if i.kind == "call":
            return total(_called(i, "to_apply"))
        if i.kind == "fusion":
            return _fused(computations[_called(i, "calls")])
        if i.kind in PARTS:
            return 2 * i.bytes
        if i.kind == "dynamic-update-slice":
            return 2 * sizes[i.operands[1]]
        return i.bytes + sum(sizes[operand] for operand in i.operands)

    return total(entry)


def _fused(block: list[_Instruction]) -> float:
    """The bytes that a fusion reads and writes."""
    by_name = {i.name: i for i in block}
    users = collections.defaultdict(list)
    for i in block:
        for place, operand in enumerate(i.operands):
            users[operand].append((i, place))

    def read(i: _Instruction) -> int:
        """Bytes that the users of a value read of it."""
        total = i.bytes if i.root else 0
        for user, place in users[i.name]:
            if user.kind == "bitcast" or (user.kind in PARTS and not place):
                total += read(user)
            elif place or user.kind != "dynamic-update-slice":
                return i.bytes
        return min(total, i.bytes)

    (result,) = (i for i in block if i.root)
    while result.kind == "bitcast":
        result = by_name[result.operands[0]]
    written = by_name[result.operands[1]].bytes if result.kind == "dynamic-update-slice" else result.bytes
    return written + sum(read(i) for i in block if i.kind == "parameter")


def _called(i: _Instruction, attribute: str) -> str:
    found = re.search(rf"\b{attribute}=%([^\s,]+)", i.rest)
    assert found is not None, i
    return found[1]


def _parse(text: str) -> tuple[dict[str, list[_Instruction]], str]:
    """The instructions of each computation, and the name of the entry computation."""
    computations: dict[str, list[_Instruction]] = {}
    entry = ""
    for line in text.splitlines():
        if header := COMPUTATION.match(line):
            block = computations[header[2]] = []
            entry = header[2] if header[1] else entry
        elif found := INSTRUCTION.match(line):
            root, name, shape, kind, operands, rest = found.groups()
            names = re.findall(r"%([^\s,]+)", operands)
            block.append(_Instruction(bool(root), name, _bytes(shape), kind, names, rest))
    return computations, entry


def _bytes(shape: str) -> int:
    widths = {"pred": 1, "bf16": 2}
    return sum(
        math.prod(map(int, filter(None, dims.split(",")))) * widths.get(kind, int(re.sub(r"\D", "", kind) or 8) // 8)
        for kind, dims in SHAPE.findall(shape)
    )
