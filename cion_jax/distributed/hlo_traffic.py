"""Memory traffic and products of a compiled program, read from its text, by the part of the program that they serve.

XLA's own "bytes accessed" takes every operand of every fusion to come from memory. On a TPU many lie in the chip's
vector memory (memory space `S(1)` in a layout), so that count is no bound. Counted here, per device:

- every operand and result that lies in main memory once per operation that reads or writes it, as large as it lies
  there (a TPU's tiles are filled up), of slices and of updates in place only what they touch;
- a copy between memories by the side of it that lies in main memory;
- a loop's body as often as it runs.

Collectives are left out (`hlo_collectives`). An operation may read an operand more than once, never less: the sum is
what the program moves at least. A GPU's or CPU's program names no memories: all of its arrays count, whether a cache
holds them or not, so that there it is an estimate.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

from cion_jax.distributed import hlo_products
from cion_jax.distributed.hlo_collectives import KINDS

_BLOCK = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) \(.*\) -> .* \{$")
_LINE = re.compile(r"^\s+(?P<root>ROOT )?%?(?P<name>[\w.\-]+) = (?P<rest>.*)$")
_CALL = re.compile(r"^(?P<result>.*?) (?P<opcode>[a-z][\w\-]*)\((?P<operands>[^)]*)\)(?P<attributes>.*)$")
_ARRAY = re.compile(r"\b(?P<type>pred|[a-z]+(?P<bits>\d+)\w*)\[(?P<shape>[\d,]*)\](?:\{(?P<layout>[^}]*)\})?")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_JITTED = re.compile(r"jit\([^)]*\)")
# What moves nothing by itself.
_FREE = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "partition-id", "replica-id"}
_FREE |= {"opt-barrier", "iota", "domain", "add-dependency"}
_FREE_CALLS = ("AllocateBuffer", "ConcatBitcast", "Sharding")
_LOOKS_THROUGH = {"bitcast", "reshape", "copy", "convert"}
_PRODUCTS = ("dot", "convolution", "custom-call")
_TAKES_PART = {"dynamic-slice", "slice", "gather"}


class Array(NamedTuple):
    """One array of an operation's result.

    Attributes:
      shape: its sizes.
      size: bytes where it lies, a TPU's tiles filled up.
      main: whether it lies in main memory.
    """

    shape: tuple[int, ...]
    size: int
    main: bool


class Operation(NamedTuple):
    """One line of a program."""

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    attributes: str
    root: bool

    @property
    def scope(self) -> str:
        """The names under which it was traced, outermost first."""
        found = _OP_NAME.search(self.attributes)
        return found[1] if found else ""

    def names(self, attribute: str) -> list[str]:
        """Computations that an attribute (`calls`, `body`, `condition`, ...) names."""
        found = re.search(rf"\b{attribute}=\{{?(%?[\w.\-]+(?:, ?%[\w.\-]+)*)", self.attributes)
        return [name.strip().removeprefix("%") for name in found[1].split(",")] if found else []


class Block(dict[str, Operation]):
    """The operations of a computation by name, in the order in which they are written: what is read comes first."""

    @cached_property
    def readers(self) -> dict[str, list[Operation]]:
        """Name of an operation -> those that read its result."""
        found: dict[str, list[Operation]] = {}
        for op in self.values():
            for name in op.operands:
                found.setdefault(name, []).append(op)
        return found


class Share(NamedTuple):
    """What an operation moves and computes: its scope, bytes, floating-point operations of products, and how often."""

    scope: str
    bytes: int
    flops: int
    times: int


class Program:
    """A compiled program."""

    def __init__(self, text: str):
        """Reads `compiled.as_text()`; ValueError where it has no entry."""
        self.blocks: dict[str, Block] = {}
        self.entry = ""
        self.unknown_loops = 0
        block = Block()
        for line in text.splitlines():
            if head := _BLOCK.match(line):
                block = self.blocks.setdefault(head["name"], Block())
                self.entry = head["name"] if head["entry"] else self.entry
            elif found := _operation(line):
                block[found.name] = found
        if not self.entry:
            raise ValueError("no ENTRY computation in the program's text; this version of XLA writes it otherwise")

    @cached_property
    def shares(self) -> list[Share]:
        """Every operation that moves or computes something."""
        return list(self._of_block(self.entry, 1))

    def bytes(self) -> int:
        """Main memory traffic of one run."""
        return sum(share.bytes * share.times for share in self.shares)

    def flops(self) -> int:
        """Floating-point operations of products and convolutions of one run."""
        return sum(share.flops * share.times for share in self.shares)

    def by_scope(self, scopes: tuple[str, ...]) -> dict[str, tuple[int, int]]:
        """Scope -> (bytes, flops), by the innermost of `scopes` in an operation's name; the rest under "other"."""
        pattern = re.compile(rf"\b({'|'.join(scopes)})\b")
        moved: Counter[str] = Counter()
        computed: Counter[str] = Counter()
        for share in self.shares:
            # Functions of JAX's own bear such names, too: jit(norm).
            scope = (pattern.findall(_JITTED.sub("", share.scope)) or ["other"])[-1]
            moved[scope] += share.bytes * share.times
            computed[scope] += share.flops * share.times
        return {scope: (moved[scope], computed[scope]) for scope in sorted(moved, key=lambda s: -moved[s])}

    def _of_block(self, name: str, times: int) -> Iterator[Share]:
        for operation in self.blocks[name].values():
            yield from self._of(operation, self.blocks[name], times)

    def _of(self, op: Operation, block: Block, times: int) -> Iterator[Share]:
        if op.opcode == "while":
            yield from self._of_block(op.names("body")[0], times * self._trips(op))
        elif op.opcode in ("call", "conditional", "async-start") and (called := self._called(op)):
            yield from max(([*self._of_block(name, times)] for name in called), key=_weight)
        elif not self._is_free(op):
            yield Share(self._scope(op, block), self._moved(op, block), self._computed(op, block), times)

    def _called(self, op: Operation) -> list[str]:
        names = [n for a in ("to_apply", "calls", "branch_computations", "true_computation") for n in op.names(a)]
        return [name for name in [*names, *op.names("false_computation")] if name in self.blocks]

    def _is_free(self, op: Operation) -> bool:
        if op.opcode == "custom-call":
            return any(f'custom_call_target="{name}"' in op.attributes for name in _FREE_CALLS)
        return op.opcode in _FREE or op.opcode.endswith("-done") or op.opcode.removesuffix("-start") in KINDS

    def _trips(self, op: Operation) -> int:
        """How often a loop runs: as the compiler says, or up to the one constant that its condition compares with."""
        if known := _TRIPS.search(op.attributes):
            return int(known[1])
        condition = self.blocks[op.names("condition")[0]]
        limits = [int(o.attributes) for o in condition.values() if o.opcode == "constant" and o.attributes.isdigit()]
        if len(limits) == 1:
            return limits[0]
        self.unknown_loops += 1
        return 1

    def _scope(self, op: Operation, block: Block) -> str:
        """Its own, or of what is fused into it, or of what reads its result: copies between memories have no name."""
        found = {op.name: op}
        while found:
            scopes = (o.scope or self._scope_within(o) for o in found.values())
            if scope := next(filter(None, scopes), ""):
                return scope
            # What reads comes behind what it reads, so that this ends.
            found = {reader.name: reader for name in found for reader in block.readers.get(name, [])}
        return ""

    def _scope_within(self, op: Operation) -> str:
        inside = (o.scope for name in op.names("calls") for o in self.blocks.get(name, {}).values())
        return next((scope for scope in inside if scope), "")

    def _moved(self, op: Operation, block: dict[str, Operation]) -> int:
        if op.opcode in ("copy-start", "slice-start"):
            # (to, from, context) and ((from), to, context): the smaller array is what moves.
            arrays = op.arrays[:2]
            return min(array.size for array in arrays) * sum(array.main for array in arrays)
        inside = [*self.blocks[op.names("calls")[0]].values()] if op.opcode == "fusion" else None
        read = 0
        for number, name in enumerate(op.operands):
            first = op.operands.index(name) == number
            whole = sum(array.size for array in block[name].arrays if array.main and first)
            touched = whole if inside is None else self._touched(inside, number, whole)
            read += min(whole, touched)
        if inside is None and op.opcode in _TAKES_PART:
            read = sum(array.size for array in op.arrays if array.main)
        return read + self._written(op, block, inside)

    def _touched(self, inside: list[Operation], number: int, whole: int) -> int:
        """Bytes that a fusion reads of its operand: all, unless every use takes a part of it or updates it in place."""
        parameter = next(o for o in inside if o.opcode == "parameter" and _parameter_number(o) == number)
        names, total = _aliases(inside, parameter.name), 0
        for user in _users(inside, parameter.name):
            if user.opcode == "fusion":
                inner = [*self.blocks[user.names("calls")[0]].values()]
                places = [place for place, name in enumerate(user.operands) if name in names]
                total += sum(self._touched(inner, place, whole) for place in places)
            elif user.opcode in _TAKES_PART and user.operands[0] in names:
                total += sum(array.size for array in user.arrays)
            elif not (user.opcode == "dynamic-update-slice" and user.operands[0] in names):
                return whole
        return total

    def _written(self, op: Operation, block: dict[str, Operation], inside: list[Operation] | None) -> int:
        """Of a result that is an operand updated in place, what is new."""
        if inside is None:
            if op.opcode == "dynamic-update-slice":
                update = block[op.operands[1]].arrays
                return sum(a.size for a in update) - sum(a.size for a in block[op.operands[0]].arrays if a.main)
            works_apart = len(op.arrays) > 1 and hlo_products.is_library(op.attributes)
            kept = op.arrays[:-1] if works_apart else op.arrays
            return sum(array.size for array in kept if array.main)
        named = {o.name: o for o in inside}
        root = next(o for o in inside if o.root)
        results = [named[n] for n in root.operands] if root.opcode == "tuple" else [root]
        if len(results) != len(op.arrays):
            return sum(array.size for array in op.arrays if array.main)
        return sum(_new(r, named, a) for r, a in zip(results, op.arrays, strict=True) if a.main)

    def _computed(self, op: Operation, block: dict[str, Operation]) -> int:
        if op.opcode == "fusion":
            inner = self.blocks[op.names("calls")[0]]
            return sum(self._computed(o, inner) for o in inner.values())
        if op.opcode not in _PRODUCTS:
            return 0
        shapes = [array.shape for name in op.operands for array in block[name].arrays[:1]]
        return hlo_products.flops(op.opcode, op.attributes, shapes, op.arrays[0].shape if op.arrays else ())


def _operation(line: str) -> Operation | None:
    found = _LINE.match(line)
    call = _CALL.match(found["rest"]) if found else None
    if not found or not call:
        return None
    operands, attributes = call["operands"], call["attributes"]
    if call["opcode"] in ("constant", "parameter"):
        attributes = operands
    names = tuple(name.removeprefix("%") for name in re.findall(r"%[\w.\-]+", operands))
    arrays = tuple(_array(match) for match in _ARRAY.finditer(call["result"]))
    return Operation(found["name"], call["opcode"], arrays, names, attributes, bool(found["root"]))


def _array(match: re.Match) -> Array:
    shape = tuple(int(size) for size in match["shape"].split(",") if size)
    order, _, rest = (match["layout"] or "").partition(":")
    filled = [shape[int(axis)] for axis in order.split(",") if axis] if order else list(shape[::-1])  # minor axis first
    if tile := re.match(r"T\(([\d,]+)\)", rest):
        edges = [int(edge) for edge in tile[1].split(",")][::-1]
        for axis, edge in enumerate(edges[: len(filled)]):
            filled[axis] = -(-filled[axis] // edge) * edge
    bits = 8 if match["type"] == "pred" else int(match["bits"])
    space = re.search(r"S\((\d+)\)", rest)
    return Array(shape, math.prod(filled) * bits // 8, space is None or space[1] == "0")


def _parameter_number(op: Operation) -> int:
    return int(op.attributes) if op.attributes.isdigit() else -1


def _aliases(inside: list[Operation], name: str) -> set[str]:
    """The names under which an array goes that is looked at in another shape."""
    known = {name}
    for op in inside:
        if op.opcode == "bitcast" and known & set(op.operands):
            known.add(op.name)
    return known


def _users(inside: list[Operation], name: str) -> list[Operation]:
    known = _aliases(inside, name)
    return [op for op in inside if known & set(op.operands) and op.opcode != "bitcast"]


def _new(result: Operation, named: dict[str, Operation], array: Array) -> int:
    """Bytes that a fusion writes of one of its results."""
    while result.opcode in _LOOKS_THROUGH and result.operands[0] in named:
        result = named[result.operands[0]]
    if result.opcode != "dynamic-update-slice":
        return array.size
    return min(array.size, sum(a.size for a in named[result.operands[1]].arrays))


def _weight(shares: list[Share]) -> int:
    return sum(share.bytes * share.times for share in shares)
