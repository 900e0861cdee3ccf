"""Counts instructions and bytes in the text of a compiled program."""

import collections
import dataclasses
import math
import re

__all__ = ["Totals", "count", "moved_bytes", "totals"]

INSTRUCTION = re.compile(r"^\s+(ROOT )?%(\S+) = (\(.*?\)|\S+) ([\w-]+)\(([^)]*)\)(.*)$")
COMPUTATION = re.compile(r"^(ENTRY )?%(\S+) \(")
SHAPE = re.compile(r"\b(pred|bf16|[sufc]\d+)\[([\d,]*)\]")
WORKSPACE = re.compile(r"s8\[\d+\]")
"""Scratch memory that a product of cuBLAS names among its results."""
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


@dataclasses.dataclass
class Totals:
    """What a program does, with every pass of every loop.

    bytes: what all instructions read and write. launches: instructions that do something, by kind; on a GPU each is a
    kernel, a product by a library, or a copy. passes: iterations of loops.
    """

    bytes: float = 0.0
    launches: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    passes: int = 0

    def add(self, other: "Totals", times: int) -> None:
        self.bytes += times * other.bytes
        self.passes += times * other.passes
        for kind, count in other.launches.items():
            self.launches[kind] += times * count


def totals(text: str) -> Totals:
    """Bytes, launches and loop iterations of a program, given its HLO as text.

    A fusion reads its operands and writes its result once. Of an array that is sliced or updated in place, only the
    part counts. Branches of a condition do not count, and a loop counts once if the program does not state its passes;
    a training step has neither. Of an asynchronous copy, the start counts and the end does not.
    """
    computations, entry = _parse(text)
    known: dict[str, Totals] = {}

    def total(name: str) -> Totals:
        if name not in known:
            block, found = computations[name], Totals()
            sizes = {i.name: i.bytes for i in block}
            for i in block:
                if i.kind in ("while", "call"):
                    stated = re.search(r'"known_trip_count":\{"n":"(\d+)"', i.rest) if i.kind == "while" else None
                    times = int(stated[1]) if stated else 1
                    found.add(total(_called(i, "body" if i.kind == "while" else "to_apply")), times)
                    found.passes += times * (i.kind == "while")
                elif i.kind not in FREE and not i.kind.endswith("-done"):
                    target = re.search(r'custom_call_target="([^"]+)"', i.rest)
                    found.launches[target[1] if target else i.kind.removesuffix("-start")] += 1
                    found.bytes += _moved(i, sizes, computations)
            known[name] = found
        return known[name]

    return total(entry)


def moved_bytes(text: str) -> float:
    """The bytes of `totals`."""
    return totals(text).bytes


def _moved(i: _Instruction, sizes: dict[str, int], computations: dict[str, list[_Instruction]]) -> float:
    """The bytes that an instruction reads and writes."""
    if "calls=" in i.rest:  # a fusion, or the start of an asynchronous one
        block = computations[_called(i, "calls")]
        inner = [j for j in block if j.kind == "fusion"]
        return _fused(computations[_called(inner[0], "calls")] if i.kind != "fusion" and len(inner) == 1 else block)
    if i.kind in PARTS:
        return 2 * i.bytes
    if i.kind == "dynamic-update-slice":
        return 2 * sizes[i.operands[1]]
    if i.kind == "copy-start":
        return 2 * sizes[i.operands[0]]
    return i.bytes + sum(sizes.get(operand, 0) for operand in i.operands)


def _fused(block: list[_Instruction]) -> float:
    """The bytes that a fusion reads and writes."""
    by_name = {i.name: i for i in block}
    users = collections.defaultdict(list)
    for i in block:
        for place, operand in enumerate(i.operands):
            users[operand].append((i, place))

    def read(i: _Instruction) -> int:
        """Bytes that the users of a value read of it."""
        total = i.bytes if i.root and i.kind != "tuple" else 0
        for user, place in users[i.name]:
            if user.kind == "tuple":
                return i.bytes
            if user.kind == "bitcast" or (user.kind in PARTS and not place):
                total += read(user)
            elif place or user.kind != "dynamic-update-slice":
                return i.bytes
        return min(total, i.bytes)

    def written(name: str) -> int:
        result = by_name[name]
        if result.kind == "tuple":
            return sum(map(written, result.operands))
        if result.kind == "bitcast":
            return written(result.operands[0])
        return by_name[result.operands[1]].bytes if result.kind == "dynamic-update-slice" else result.bytes

    (result,) = (i for i in block if i.root)
    return written(result.name) + sum(read(i) for i in block if i.kind == "parameter")


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
            if shape.startswith("("):
                shape = WORKSPACE.sub("", shape)
            block.append(_Instruction(bool(root), name, _bytes(shape), kind, names, rest))
    return computations, entry


def _bytes(shape: str) -> int:
    widths = {"pred": 1, "bf16": 2}
    return sum(
        math.prod(map(int, filter(None, dims.split(",")))) * widths.get(kind, int(re.sub(r"\D", "", kind) or 8) // 8)
        for kind, dims in SHAPE.findall(shape)
    )
