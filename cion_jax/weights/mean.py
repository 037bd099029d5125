"""The mean of networks' weights: `mean:A+B`, or `mean:0.3*A+0.7*B`, of networks that were trained from the same one.

Between a network and what it was adapted to lie networks that keep more of what the first knew elsewhere (Wortsman et
al., arXiv 2109.01903). Of networks that have no common start the mean is worth nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import jax
import numpy as np

from cion_jax.common.typed_config import ConfigError
from cion_jax.weights.backbone import Backbone
from cion_jax.weights.torch_names import WeightsError

PREFIX = "mean:"
_SHARE = re.compile(r"(?:(?P<share>[0-9]*\.?[0-9]+)\*)?(?P<spec>.+)")
_ROUNDING = 1e-6  # of shares, from 1


def parts(spec: str) -> list[tuple[float, str]]:
    """(share, checkpoint) of every network; shares that are not given are equal.

    Raises:
      ConfigError: fewer than two networks, shares of some alone, or shares that do not make 1.
    """
    found = [_SHARE.fullmatch(part) for part in spec.removeprefix(PREFIX).split("+")]
    matches = [match for match in found if match]
    given = [float(match["share"]) for match in matches if match["share"]]
    if len(matches) < max(2, len(found)) or (given and (len(given) < len(found) or abs(sum(given) - 1) > _ROUNDING)):
        raise ConfigError(
            f"--checkpoint={spec}: expected mean:A+B, or shares of all that make 1, mean:0.3*A+0.7*B, with A and B as "
            "--checkpoint takes them, without a + in their names"
        )
    shares = given or [1 / len(found)] * len(found)
    return [(share, match["spec"]) for share, match in zip(shares, matches, strict=True)]


def of(networks: Sequence[tuple[float, Backbone]]) -> Backbone:
    """A network whose weights and running statistics are means, in shares that make 1, taken in float64.

    Raises:
      WeightsError: they are of several kinds, or take other images.
    """
    (_, first), *others = networks
    for _, other in others:
        kinds = [
            (one.name, one.preprocessing, jax.tree.map(np.shape, (one.params, one.stats))) for one in (first, other)
        ]
        if kinds[0] != kinds[1]:
            raise WeightsError(
                f"the mean of {first.name} {first.preprocessing} and {other.name} {other.preprocessing}: expected "
                "networks of one kind that take the same images"
            )

    def mean(*leaves: np.ndarray) -> np.ndarray:
        total = sum(share * np.asarray(leaf, np.float64) for (share, _), leaf in zip(networks, leaves, strict=True))
        return np.asarray(total, np.float32)

    params, stats = jax.tree.map(mean, *((network.params, network.stats) for _, network in networks))
    return replace(first, params=params, stats=stats, step=None, run=None, head={})
