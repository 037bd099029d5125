"""What may differ between a file and the model without being another model: types, positions, classifiers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import ml_dtypes
import numpy as np

from cion_jax.common.finite import not_finite
from cion_jax.common.printable import printable, some
from cion_jax.weights import positions
from cion_jax.weights.positions import POSITIONS
from cion_jax.weights.state_dict import Lazy
from cion_jax.weights.torch_names import WeightsError

_FLOATS = (np.float16, ml_dtypes.bfloat16, np.float64)
_CLASSIFIERS = {"head", "fc", "classifier", "head_dist", "heads"}


def adapt(
    tensors: Mapping[str, Lazy],
    shapes: Mapping[str, tuple[int, ...]],
    derived: Iterable[str],
    size: tuple[int, int],
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Reads the tensors of a network.

    Args:
      tensors: by name, without a prefix.
      shapes: that the model has, by name.
      derived: names that the model has no weights for, but files do.
      size: (height, width) of the images that the weights are wanted for.

    Returns:
      Arrays by name, float32 where the file has other floating-point numbers, and what was done, for people. Of the
      names that the model does not have, those of classifiers are left out.

    Raises:
      WeightsError: a weight is not finite, damaged, or of positions whose grid cannot be told.
    """
    known = {*shapes, *derived}
    beside = sorted(name for name in tensors if name not in known and name.split(".")[0] in _CLASSIFIERS)
    arrays = {name: tensor.array() for name, tensor in tensors.items() if name not in beside}
    said = []
    if beside:
        listed = some(f"{name} {tuple(tensors[name].shape)}" for name in beside)
        said.append(f"left out {listed}: a classifier, not part of the backbone")
    said += _cast(arrays, shapes)
    if POSITIONS in shapes and POSITIONS in arrays and _same_but_for_the_grid(arrays[POSITIONS], shapes[POSITIONS]):
        arrays[POSITIONS], done = positions.resize(arrays[POSITIONS], shapes[POSITIONS], size)
        said += [f"{POSITIONS} {done}"] if done else []
    check_weights({name: arrays[name] for name in arrays if name in shapes})
    return arrays, said


def check_weights(arrays: Mapping[str, np.ndarray]) -> None:
    """Raises WeightsError where some are not finite."""
    bad = not_finite(arrays)
    if bad:
        raise WeightsError(
            f"{len(bad)} of {len(arrays)} weights are not finite (NaN or infinity): {some(bad)}; take an earlier "
            "checkpoint, or get the file anew"
        )


def _cast(arrays: dict[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Makes float32 of other floating-point numbers, in place."""
    kinds = {name: array.dtype for name, array in arrays.items() if name in shapes and array.dtype in _FLOATS}
    for name in kinds:
        with np.errstate(over="ignore"):  # what becomes infinite is refused by name
            arrays[name] = arrays[name].astype(np.float32)
    return [
        f"cast {count} tensors from {printable(kind.name)} to float32"
        for kind, count in Counter(kinds.values()).items()
    ]


def _same_but_for_the_grid(array: np.ndarray, shape: tuple[int, ...]) -> bool:
    ends = (array.shape[0], array.shape[-1]) == (shape[0], shape[-1]) if array.ndim else False
    return ends and array.ndim == len(shape) and min(array.shape) > 0 and array.shape[1] > 1
