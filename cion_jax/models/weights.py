"""PyTorch state dicts <-> our trees. A leaf's path is its PyTorch name up to the last component and the axis order.

Conv [out, in, h, w] <-> kernel [h, w, in, out]; linear [out, in] <-> kernel [in, out]; a norm's weight <-> scale;
running_mean, running_var <-> mean, var. The head's weight_v and weight_g are transposed like kernels. All other
leaves are stored alike. Two kinds of entries are constants rather than weights: `num_batches_tracked` (always 0
here) and Swin's `relative_position_index`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

_RENAMED = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
_TRANSPOSED = {"kernel", "weight_v", "weight_g"}
_AXES = {2: (1, 0), 4: (3, 2, 0, 1)}
_CONSTANTS = re.compile(r"(^|\.)(num_batches_tracked|relative_position_index)$")


def to_torch(params: dict, stats: dict) -> dict[str, np.ndarray]:
    """Our trees -> PyTorch names and axis order, with a `num_batches_tracked` of 0 for every BatchNorm."""
    named = {}
    for path, leaf in _leaves(params, stats).items():
        named[torch_name(path)] = np.ascontiguousarray(
            np.asarray(leaf).transpose(_axes(path[-1], np.ndim(leaf)))
        )
        if path[-1] == "mean":
            named[".".join((*path[:-1], "num_batches_tracked"))] = np.zeros((), np.int64)
    return named


def from_torch(
    named: dict[str, np.ndarray], params: dict, stats: dict, *, ignore: Iterable[str] = ()
) -> tuple[dict, dict]:
    """PyTorch state dict -> (params, stats) of the structure of the given ones, as NumPy arrays.

    Args:
      named: PyTorch names to arrays.
      params, stats: trees of arrays or of `jax.ShapeDtypeStruct`; only structure, shapes and dtypes are read.
      ignore: regular expressions; a missing or unexpected name that one of them matches in full is excused. A missing one
        keeps the value of the given trees.

    Raises:
      ValueError: names missing, unexpected, of the wrong shape or dtype; the message lists them all.
    """
    expected = {torch_name(path): (path, leaf) for path, leaf in _leaves(params, stats).items()}
    _check(named, expected, [re.compile(pattern) for pattern in ignore])
    loaded = {path: _ours(named[n], path) if n in named else leaf for n, (path, leaf) in expected.items()}
    trees = ({path: loaded[path] for path in flatten_dict(tree)} for tree in (params, stats))
    new_params, new_stats = (unflatten_dict(tree) for tree in trees)
    return new_params, new_stats


def torch_name(path: tuple[str, ...]) -> str:
    """("bn1", "scale") -> "bn1.weight"."""
    return ".".join((*path[:-1], _RENAMED.get(path[-1], path[-1])))


def _leaves(params: dict, stats: dict) -> dict[tuple[str, ...], jax.Array]:
    return {**flatten_dict(params), **flatten_dict(stats)}


def _axes(leaf: str, rank: int) -> tuple[int, ...]:
    return _AXES[rank] if leaf in _TRANSPOSED else tuple(range(rank))


def _ours(array: np.ndarray, path: tuple[str, ...]) -> np.ndarray:
    return np.ascontiguousarray(array.transpose(np.argsort(_axes(path[-1], array.ndim))))


def _check(named: dict, expected: dict, ignore: list[re.Pattern]) -> None:
    def excused(name: str) -> bool:
        return any(pattern.fullmatch(name) for pattern in ignore)

    wrong = [f"missing: {n}" for n in expected if n not in named and not excused(n)]
    wrong += [f"unexpected: {n}" for n in named if not (n in expected or _CONSTANTS.search(n) or excused(n))]
    for name, (path, leaf) in expected.items():
        if name not in named:
            continue
        got, axes = named[name], _axes(path[-1], len(leaf.shape))
        shape = tuple(leaf.shape[axis] for axis in axes)
        if got.shape != shape:
            wrong.append(f"wrong shape: {name} is {got.shape}, the model has {shape}")
        if got.dtype != leaf.dtype:
            wrong.append(f"wrong dtype: {name} is {got.dtype}, the model has {leaf.dtype}")
    if wrong:
        listed = "\n  ".join(sorted(wrong))
        raise ValueError(
            f"these weights do not fit the model ({len(wrong)} differences); excuse names by `ignore`:\n  {listed}"
        )
