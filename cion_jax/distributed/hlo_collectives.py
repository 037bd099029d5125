"""Collectives of a compiled program, read from its text."""

from __future__ import annotations

import math
import re
from collections import defaultdict

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_OPERATION = re.compile(rf"= (?P<result>.*?) (?P<kind>{'|'.join(KINDS)})(-start)?\((?P<rest>.*)")
_ARRAY = re.compile(r"\b(?P<type>pred|[a-z]+(?P<bits>\d+)\w*)\[(?P<shape>[\d,]*)\]")
_LISTED = re.compile(r"replica_groups=\{\{(?P<first>[\d,]+)\}")
_IOTA = re.compile(r"replica_groups=\[\d+,(?P<size>\d+)\]")
_MESH = re.compile(r"replica_groups=mesh\[(?P<sizes>[^\]]*)\][^{]*\{(?P<names>[^}]*)\}")


def of_program(text: str) -> dict[str, tuple[int, int]]:
    """Kind -> (operations, bytes that each device sends).

    Of n devices that take part, on a ring: an all-gather or reduce-scatter of b bytes in all sends b (n - 1) / n, an
    all-reduce twice that, a permutation b. What a loop's body holds counts once.
    """
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for match in map(_OPERATION.search, text.splitlines()):
        if match:
            kind, n = match["kind"], _participants(match["rest"])
            sizes = [_bytes(array) for array in _ARRAY.finditer(match["result"])]
            whole = max(sizes) if "-start(" in match[0] else sum(sizes)
            found[kind][0] += 1
            found[kind][1] += round(whole * _factor(kind, n))
    return {kind: (count, size) for kind, (count, size) in sorted(found.items())}


def _participants(rest: str) -> int:
    if listed := _LISTED.search(rest):
        return len(listed["first"].split(","))
    if iota := _IOTA.search(rest):
        return int(iota["size"])
    if mesh := _MESH.search(rest):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh["sizes"]))
        # A part of an axis is written with its own size: 'axis':(1)2.
        parts = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", mesh["names"])
        return math.prod(int(own or sizes[name]) for name, own in parts)
    if "source_target_pairs" in rest:
        return 2
    raise ValueError(f"no replica groups that this version of XLA is known to write in: {rest[:300]}")


def _factor(kind: str, n: int) -> float:
    ring = (n - 1) / n
    return {"all-reduce": 2 * ring, "reduce-scatter": n - 1, "collective-permute": 1}.get(kind, ring)


def _bytes(array: re.Match) -> int:
    bits = 8 if array["type"] == "pred" else int(array["bits"])
    return math.prod(int(size) for size in array["shape"].split(",") if size) * bits // 8
