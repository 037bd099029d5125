"""A file of weights from end to end: every checksum, every tensor, every number."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from cion_jax.common import checksums
from cion_jax.common.errors import UserError
from cion_jax.common.printable import printable
from cion_jax.weights import safetensors_file, torch_file
from cion_jax.weights.state_dict import Lazy, tensor_dicts, why_none
from cion_jax.weights.weights_file import open_weights

_KINDS = (".safetensors", ".msgpack", ".stablehlo", ".onnx")  # that are exported
_STEP = 2**22  # numbers that are looked at together


def verify_file(path: Path) -> tuple[str, list[str]]:
    """(what was looked at, what is damaged: a line each).

    A file that cannot be opened is one damaged thing. The older format of torch.save and safetensors have no checksums:
    there a changed number shows only where it is not finite.
    """
    try:
        opened = open_weights(path)
    except UserError as error:
        return "it cannot be opened", [str(error)]
    in_archive = not safetensors_file.is_safetensors(path) and torch_file.is_zip(path)
    damage = torch_file.damaged_members(path) if in_archive else []
    dicts = tensor_dicts(opened.saved)
    damage += [] if dicts else [why_none(opened.saved)]
    for where, tensors in dicts:
        damage += _damaged(".".join(where), tensors.items())
    count = sum(len(tensors) for _, tensors in dicts)
    numbers = sum(math.prod(tensor.shape) for _, tensors in dicts for tensor in tensors.values())
    checked = (
        "with a checksum of every byte" if in_archive else "without checksums: what is finite may still be another"
    )
    return f"{count:,} tensors in {len(dicts)} dicts, {numbers:,} numbers, {checked}", damage


def is_exported(path: Path) -> bool:
    """Whether a path is what `cion_jax.export` wrote, with digests: a file, or a folder of such files."""
    return bool(_sums(path))


def verify_exported(path: Path) -> tuple[str, list[str]]:
    """(what was looked at, what is damaged: a line each): every byte; of weights every number, too."""
    sums = _sums(path)
    files = [each.with_name(each.name.removesuffix(checksums.SUFFIX)) for each in sums]
    damage = [line for each in sums for line in checksums.damage(each)]
    numbers = [verify_file(file) for file in files if file.suffix == ".safetensors" and not damage]
    unknown = (
        sorted(p.name for p in _folder(path).glob("*.*") if p.suffix in _KINDS and p not in files)
        if path.is_dir()
        else []
    )
    said = f", no digest recorded for {', '.join(map(printable, unknown))}" if unknown else ""
    looked_at = f"{', '.join(printable(file.name) for file in files)}, with a digest of every byte{said}"
    return looked_at, damage + [line for _, wrong in numbers for line in wrong]


def _folder(path: Path) -> Path:
    """Where the files of an adaptation's folder, or of a folder of exports, lie."""
    return path / "export" if (path / "export").is_dir() else path


def _sums(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(_folder(path).glob(f"*{checksums.SUFFIX}"))
    return [checksums.beside(path)] if checksums.beside(path).exists() else []


def _damaged(where: str, tensors: Iterable[tuple[str, Lazy]]) -> Iterator[str]:
    for name, tensor in tensors:
        place = printable(f"{where}.{name}" if where else name)
        try:
            bad = _not_finite(tensor)
        except UserError as error:
            yield f"{place}: {error}"
            continue
        if bad:
            yield f"{place}: {bad:,} of {math.prod(tensor.shape):,} numbers are not finite"


def _not_finite(tensor: Lazy) -> int:
    array = tensor.array()
    if array.dtype.kind in "biu":
        return 0
    flat = array.reshape(-1) if array.flags.c_contiguous else array.flat
    return sum(int((~np.isfinite(flat[at : at + _STEP])).sum()) for at in range(0, array.size, _STEP))
