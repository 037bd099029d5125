"""PyTorch state dicts <-> our trees. A leaf's path is its PyTorch name up to the last part and the axis order.

Conv [out, in, h, w] <-> kernel [h, w, in, out]; linear [out, in] <-> kernel [in, out]; a norm's weight <->
scale; running_mean, running_var <-> mean, var. The head's weight_v and weight_g are transposed like kernels.
All other leaves are stored alike. Two kinds of entries are no weights, but follow from the model:
`num_batches_tracked` (always 0 here) and Swin's `relative_position_index`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from cion_jax.common.errors import UserError
from cion_jax.common.patterns import compiled, matches_one
from cion_jax.common.printable import some
from cion_jax.models.layers import relative_position_index

_RENAMED = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
_TRANSPOSED = {"kernel", "weight_v", "weight_g"}
_AXES = {2: (1, 0), 4: (3, 2, 0, 1)}

Path = tuple[str, ...]


class WeightsError(UserError):
    """Weights that do not fit the model, or are none."""


class MisfitError(WeightsError):
    """Names, shapes or types that differ from the model's; the message shows five of each sort.

    Attributes:
      misfits: sort -> all lines of it.
    """

    def __init__(self, misfits: dict[str, list[str]]):
        self.misfits = misfits
        listed = (f"{len(lines)} {sort}: {some(sorted(lines))}" for sort, lines in misfits.items() if lines)
        super().__init__(
            f"these weights do not fit the model in {sum(map(len, misfits.values()))} places; give the right file, or "
            "excuse missing and unexpected names by --ignore (training: config.init_ignore):\n  " + "\n  ".join(listed)
        )


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
      ignore: regular expressions (RE2); a missing or unexpected name that one of them matches in full is excused. A
        missing one keeps the value of the given trees.

    Raises:
      MisfitError: names missing, unexpected, of the wrong shape or dtype.
    """
    leaves = _leaves(params, stats)
    _check(named, leaves, [compiled(pattern, "--ignore") for pattern in ignore])

    def load(tree: dict) -> dict:
        flat = {path: (torch_name(path), leaf) for path, leaf in flatten_dict(tree).items()}
        return unflatten_dict({p: _inverse(named[n], p) if n in named else leaf for p, (n, leaf) in flat.items()})

    return load(params), load(stats)


def expected(params: dict, stats: dict) -> tuple[dict[str, tuple[int, ...]], set[str]]:
    """(shapes by PyTorch name, names of the entries that follow from the model) of trees of arrays or of shapes."""
    leaves = _leaves(params, stats)
    return {torch_name(path): _torch_shape(leaf, path) for path, leaf in leaves.items()}, set(_derived(leaves))


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


def _check(named: Mapping[str, Any], leaves: dict[Path, Any], ignore: Sequence[Any]) -> None:
    derived, expected = _derived(leaves), {torch_name(path): path for path in leaves}

    def excused(name: str) -> bool:
        return matches_one(ignore, name)

    common = {name: leaves[expected[name]] for name in expected.keys() & named.keys()}
    misfits = {
        "missing": [name for name in expected.keys() - named.keys() if not excused(name)],
        "unexpected": [name for name in named.keys() - expected.keys() - derived.keys() if not excused(name)],
        "of a wrong shape": [
            f"{name} is {named[name].shape}, the model has {_torch_shape(leaf, expected[name])}"
            for name, leaf in common.items()
            if named[name].shape != _torch_shape(leaf, expected[name])
        ],
        "of a wrong type": [
            f"{name} is {named[name].dtype}, the model has {leaf.dtype}"
            for name, leaf in common.items()
            if named[name].dtype != leaf.dtype
        ],
        "of a wrong value": [
            f"{name} is not the index of a window of this size"
            for name in derived.keys() & named.keys()
            if name.endswith("index") and not np.array_equal(named[name], derived[name])
        ],
    }
    if any(misfits.values()):
        raise MisfitError(misfits)
