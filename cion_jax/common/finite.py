"""Numbers that are none: NaN and infinity are refused where weights come in and where features go out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cion_jax.common.errors import UserError
from cion_jax.common.printable import some


class NotFiniteError(UserError):
    """NaN or infinity where a number was expected."""


def not_finite(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Names of the arrays that hold NaN or infinity."""
    return [name for name, array in arrays.items() if not np.isfinite(array).all()]


def check_finite(features: np.ndarray, keys: Sequence[object]) -> None:
    """Looks at features before they are written, scored or searched.

    Args:
      features: [N, d].
      keys: N names of what they are of, for the message.

    Raises:
      NotFiniteError: some of them are NaN or infinite.
    """
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        named = some(str(key) for key, is_bad in zip(keys, bad, strict=True) if is_bad)
        raise NotFiniteError(
            f"the features of {bad.sum()} of {len(bad)} images are not finite: {named}; nothing was written. The "
            "weights are broken, or far too large: take an earlier checkpoint"
        )
