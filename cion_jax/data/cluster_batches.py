"""Batches of P clusters x K images, across cameras: the sampler of Cluster Contrast. Pure numpy.

A pass takes every cluster once, in random order: a random image of it, and K - 1 others that other cameras saw. Batches
of P clusters are cut from passes, what is left of a pass is left out; with fewer than P clusters passes follow one
another within a batch. Which records group g of an epoch has is a pure function of (seed, epoch, labels, g).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cion_jax.data.groups import PlanError, Position

_STREAM = 4  # other than those of `groups` and `pk_batches`


@dataclass(frozen=True)
class ClusterTimeline:
    """Epochs of equally many steps; see `stream.IdentityStream`.

    Attributes:
      epochs: in the run.
      steps: of an epoch.
      batch_size: images in the global batch, P x K.
      instances: K.
      ends: number of the epoch after which the batches of a stream end, since the next one has other clusters.
    """

    epochs: int
    steps: int
    batch_size: int
    instances: int
    ends: int = 0

    def __post_init__(self) -> None:
        """Raises PlanError where a batch cannot be made."""
        if self.batch_size % self.instances or self.batch_size < 2 * self.instances:
            near = max(2, round(self.batch_size / self.instances)) * self.instances
            raise PlanError(
                f"a batch holds whole groups of {self.instances} images of two or more clusters, got "
                f"config.data.batch_size={self.batch_size}; choose a multiple of {self.instances}, e.g. {near}"
            )

    @property
    def steps_per_epoch(self) -> tuple[int, ...]:
        """One number for every epoch, all the same."""
        return (self.steps,) * self.epochs

    @property
    def total_steps(self) -> int:
        """Steps of all epochs."""
        return self.steps * self.epochs

    def at(self, step: int) -> Position:
        """Position of a step; IndexError outside 0 .. total_steps-1."""
        if not 0 <= step < self.total_steps:
            raise IndexError(f"step {step} is outside the run's 0 .. {self.total_steps - 1}")
        return Position(*divmod(step, self.steps), self.instances)

    def phases(self, start: int = 0) -> list[range]:
        """The steps from `start` to the end of its epoch."""
        end = (self.ends + 1) * self.steps
        return [range(start, end)] if start < end else []


class ClusterPlan:
    """All groups of one epoch, batch after batch."""

    def __init__(
        self, parts: Sequence[np.ndarray], camera: np.ndarray, seed: int, epoch: int, steps: int, p: int, k: int
    ):
        """Draws everything at once: O(steps x P x size of a cluster).

        Args:
          parts: [N] int64 clusters of all records, from 0 on, -1: left out. Of several, each has an equal share of
            every batch, in this order: a source and a target.
          camera: [N] int64; unknown ones are alike.
          seed: of the run.
          epoch: from 0 on.
          steps: batches.
          p: groups of a batch.
          k: images of a group.
        """
        share = p // len(parts)
        drawn = []
        for number, label in enumerate(parts):
            rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch, _STREAM, number))))
            members = of_clusters(label)
            chosen = passes(rng, len(members), steps, share)
            groups = [group(rng, members[cluster], camera, k) for cluster in chosen.ravel()]
            drawn.append(np.reshape(groups, (steps, share, k)))
        self._records = np.concatenate(drawn, 1).reshape(-1, k)

    def __len__(self) -> int:
        return len(self._records)

    def group(self, g: int) -> np.ndarray:
        """[K] int64 record numbers of group g, the (g mod P)th of batch g // P; IndexError outside 0 .. len-1."""
        return self._records[g]


def of_clusters(label: np.ndarray) -> list[np.ndarray]:
    """Records of every cluster 0, 1, ..., from [N] labels; -1 is none."""
    order = np.argsort(label, kind="stable")
    ends = np.cumsum(np.bincount(label + 1, minlength=1))
    return np.split(order[ends[0] :], ends[1:-1] - ends[0])


def passes(rng: np.random.Generator, clusters: int, steps: int, p: int) -> np.ndarray:
    """[steps, P] clusters: distinct ones in a batch, where there are as many."""
    if clusters < p:
        count = -(-steps * p // clusters)
        return np.concatenate([rng.permutation(clusters) for _ in range(count)])[: steps * p].reshape(steps, p)
    whole = clusters // p
    count = -(-steps // whole)
    return np.concatenate([rng.permutation(clusters)[: whole * p] for _ in range(count)]).reshape(-1, p)[:steps]


def group(rng: np.random.Generator, members: np.ndarray, camera: np.ndarray, k: int) -> np.ndarray:
    """[K] records of one cluster: a random one, and others of other cameras, of the same one where there is no other.

    Fewer than K others are drawn with replacement. A cluster of one record gives it K times.
    """
    anchor = members[rng.integers(len(members))]
    others = members[camera[members] != camera[anchor]]
    others = others if len(others) else members[members != anchor]
    if not len(others):
        return np.repeat(anchor, k)
    return np.append(anchor, rng.choice(others, k - 1, replace=len(others) < k))
