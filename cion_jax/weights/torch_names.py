"""PyTorch state dicts <-> our trees. A leaf's path is its PyTorch name up to the last part and the axis order.

Conv [out, in, h, w] <-> kernel [h, w, in, out]; linear [out, in] <-> kernel [in, out]; a norm's weight <->
scale; running_mean, running_var <-> mean, var. The head's weight_v and weight_g are transposed like kernels.
All other leaves are stored alike. Two kinds of entries are no weights, but follow from the model:
`num_batches_tracked` (always 0 here) and Swin's `relative_position_index`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from cion_jax.common.errors import UserError
from cion_jax.models.layers import relative_position_index

_RENAMED = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
_TRANSPOSED = {"kernel", "weight_v", "weight_g"}
_AXES = {2: (1, 0), 4: (3, 2, 0, 1)}

Path = tuple[str, ...]


class WeightsError(UserError):
    """Weights that do not fit the model, or are none."""


def to_torch(params: dict, stats: dict) -> dict[str, np.ndarray]:
    """Our trees -> PyTorch names and axis order, with the entries that follow from the model."""
    leaves = _leaves(params, stats)
    named = {torch_name(path): _transposed(np.asarray(leaf), path) for path, leaf in leaves.items()}
    return named | _derived(leaves)


def from_torch(
    named: dict[str, np.ndarray], params: dict, stats: dict, *, ignore: Iterable[str] = ()
) -> tuple[dict, dict]:
    """PyTorch state dict -> (params, stats) of the structure of the given ones, as NumPy arrays.

    Args:
      named: PyTorch names to arrays.
      params: tree of arrays or of `jax.ShapeDtypeStruct`, of which structure, shapes and dtypes are read.
      stats: the same for the running statistics.
      ignore: regular expressions; a missing or unexpected name that one of them matches in full is excused. A
        missing one keeps the value of the given trees.

    Raises:
      WeightsError: names missing, unexpected, of the wrong shape or dtype; the message lists them all.
    """
    leaves = _leaves(params, stats)
    _check(named, leaves, [re.compile(pattern) for pattern in ignore])

    def load(tree: dict) -> dict:
        flat = {path: (torch_name(path), leaf) for path, leaf in flatten_dict(tree).items()}
        return unflatten_dict({p: _inverse(named[n], p) if n in named else leaf for p, (n, leaf) in flat.items()})

    return load(params), load(stats)


def torch_name(path: Path) -> str:
    """("bn1", "scale") -> "bn1.weight"; ("features_", "0", "bias") -> "features.0.bias".

    A trailing underscore marks a name that our modules need for something else, as `features` is.
    """
    return ".".join((*(part.rstrip("_") for part in path[:-1]), _RENAMED.get(path[-1], path[-1])))


def _leaves(params: dict, stats: dict) -> dict[Path, Any]:
    return {**flatten_dict(params), **flatten_dict(stats)}


def _derived(leaves: dict[Path, Any]) -> dict[str, np.ndarray]:
    derived = {}
    for (*module, name), leaf in leaves.items():
        if name == "mean":
            derived[torch_name((*module, "num_batches_tracked"))] = np.zeros((), np.int64)
        if name == "relative_position_bias_table":
            window = (math.isqrt(leaf.shape[0]) + 1) // 2
            derived[torch_name((*module, "relative_position_index"))] = relative_position_index(window)
    return derived


def _axes(path: Path, rank: int) -> tuple[int, ...]:
    return _AXES[rank] if path[-1] in _TRANSPOSED else tuple(range(rank))


def _transposed(array: np.ndarray, path: Path) -> np.ndarray:
    return np.ascontiguousarray(array.transpose(_axes(path, array.ndim)))


def _torch_shape(leaf: Any, path: Path) -> tuple[int, ...]:
    return tuple(leaf.shape[axis] for axis in _axes(path, len(leaf.shape)))


def _inverse(array: np.ndarray, path: Path) -> np.ndarray:
    return np.ascontiguousarray(array.transpose(np.argsort(_axes(path, array.ndim))))


def _check(named: dict[str, np.ndarray], leaves: dict[Path, Any], ignore: list[re.Pattern]) -> None:
    derived, expected = _derived(leaves), {torch_name(path): path for path in leaves}
    wrong = [f"missing: {name}" for name in expected.keys() - named.keys()]
    wrong += [f"unexpected: {name}" for name in named.keys() - expected.keys() - derived.keys()]
    wrong = [line for line in wrong if not any(p.fullmatch(line.split(": ", 1)[1]) for p in ignore)]
    for name in expected.keys() & named.keys():
        wrong += _differences(name, named[name], leaves[expected[name]], expected[name])
    for name in derived.keys() & named.keys():
        if name.endswith("index") and not np.array_equal(named[name], derived[name]):
            wrong.append(f"wrong value: {name} is not the index of a window of this size")
    if wrong:
        raise WeightsError(
            f"these weights do not fit the model in {len(wrong)} places; give the right file, or excuse "
            "missing and unexpected names by `ignore`:\n  " + "\n  ".join(sorted(wrong))
        )


def _differences(name: str, got: np.ndarray, leaf: Any, path: Path) -> Iterator[str]:
    if got.shape != _torch_shape(leaf, path):
        yield f"wrong shape: {name} is {got.shape}, the model has {_torch_shape(leaf, path)}"
    if got.dtype != leaf.dtype:
        yield f"wrong dtype: {name} is {got.dtype}, the model has {leaf.dtype}"
