"""Batches of P distinct identities x K images: the samplers of TransReID and FastReID. Pure numpy.

Identity groups in any order (`cion_jax/data/groups.py`) put two groups of one identity into one batch now and then.
Batch-hard triplets want P people, so here the groups of a pass are dealt out batch by batch: every batch takes P
random identities among those that still have groups, and the next group of each. A pass ends where fewer than P
identities are left, so passes differ in length; what is left over is left out.

`PkPlan` and `PkTimeline` are used as `EpochPlan` and `Timeline` are. Which records group g of pass e has is a pure
function of (seed, e, g, P, K), and where a pass ends is one of (seed, e, P, K), so a run can start anywhere.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from cion_jax.data.groups import PlanError, Position, Units

_ORDER_STREAM, _RECORD_STREAM = 2, 3  # other than those of `groups`


class _Dealt(NamedTuple):
    """The identity groups of a pass, in order.

    Attributes:
      unit: [N, P] int64 unit of every group.
      nth: [N, P] int64, the how manieth group of its unit it is.
    """

    unit: np.ndarray
    nth: np.ndarray


class PkPlan:
    """All identity groups of one pass, batch after batch.

    A unit with n >= K images gives floor(n / K) groups of distinct images from a permutation of its images that is
    fresh in every pass. A unit with fewer gives one group of K draws with replacement.
    """

    def __init__(self, units: Units, seed: int, number: int, p: int, k: int):
        """Takes O(number of images).

        Args:
          units: of the dataset.
          seed: of the run.
          number: of the pass, from 0 on.
          p: identities of a batch.
          k: images of a group.
        """
        unit, nth = (v.ravel() for v in _deal(units, seed, number, p, k))
        rng = _generator(seed, number, _RECORD_STREAM)
        owner = np.repeat(np.arange(len(units)), units.sizes)
        shuffled = units.shuffled(owner, np.arange(len(owner)), rng.random(len(owner)), 1.0)
        again = (rng.random((len(units), k)) * units.sizes[:, None]).astype(np.int64)
        place = np.where((units.sizes < k)[unit, None], again[unit], nth[:, None] * k + np.arange(k))
        self._records = units.records[shuffled[units.start[unit][:, None] + place]]

    def __len__(self) -> int:
        return len(self._records)

    def group(self, g: int) -> np.ndarray:
        """[K] int64 record numbers of group g, the (g mod P)th of batch g // P; IndexError outside 0 .. len-1."""
        return self._records[g]

    def groups(self, which: slice | np.ndarray) -> np.ndarray:
        """[G, K] int64 record numbers of many groups at once."""
        return self._records[which]


class PkTimeline:
    """Which pass and which batch of it every training step has.

    Attributes:
      batch_size: images in the global batch, P x K.
      steps_per_epoch: one int for every epoch.
      total_steps: their sum.
    """

    def __init__(
        self, units: Units, seed: int, epochs: int, batch_size: int, k: int, *, steps_per_epoch: int | None = None
    ):
        """Lays the steps out.

        Args:
          units: of the dataset.
          seed: of the run.
          epochs: number of epochs.
          batch_size: images in the global batch, a multiple of K.
          k: images of an identity in a batch.
          steps_per_epoch: of every epoch, whatever the passes are, which go on from epoch to epoch (FastReID: images
            // batch_size); None makes every pass an epoch (TransReID).

        Raises:
          PlanError: the settings contradict each other or the data; says what would work.
        """
        self.batch_size, self._k = batch_size, k
        p = _identities(units, batch_size, k)
        self._length = functools.cache(lambda number: len(_deal(units, seed, number, p, k).unit))
        lengths = [self._length(number) for number in range(epochs)] if steps_per_epoch is None else []
        self.steps_per_epoch = tuple(lengths) or (steps_per_epoch or 0,) * epochs
        self.total_steps = sum(self.steps_per_epoch)
        ends = [0]
        while ends[-1] < self.total_steps:
            ends.append(ends[-1] + self._length(len(ends) - 1))
        self._ends = np.array(ends[1:])

    def k(self, epoch: int) -> int:
        """Images per identity group, in every epoch the same."""
        del epoch
        return self._k

    def at(self, step: int) -> Position:
        """Pass (`epoch`), batch of it and K of a step; IndexError outside 0 .. total_steps-1."""
        if not 0 <= step < self.total_steps:
            raise IndexError(f"step {step} is outside the run's 0 .. {self.total_steps - 1}")
        number = int(np.searchsorted(self._ends, step, side="right"))
        begin = int(self._ends[number - 1]) if number else 0
        return Position(number, step - begin, self._k)

    def phases(self, start: int = 0) -> list[range]:
        """All steps from `start` on: the shape of a group never changes."""
        return [range(start, self.total_steps)] if start < self.total_steps else []


def _deal(units: Units, seed: int, number: int, p: int, k: int) -> _Dealt:
    """Deals the groups of pass `number` out; takes O(number of groups)."""
    rng = _generator(seed, number, _ORDER_STREAM)
    count, left = units.groups_per_unit(k), np.arange(len(units))
    used, batches, nths = np.zeros_like(count), [], []
    while len(left) >= p:
        chosen = rng.choice(len(left), p, replace=False)
        unit = left[chosen]
        batches.append(unit)
        nths.append(used[unit])
        used[unit] += 1
        left = _without(left, chosen[used[unit] == count[unit]])
    return _Dealt(np.reshape(batches, (-1, p)).astype(np.int64), np.reshape(nths, (-1, p)).astype(np.int64))


def _without(left: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """Takes places out by moving the last ones there: O(places), in any order."""
    for place in np.sort(gone)[::-1]:
        left[place] = left[len(left) - 1]
        left = left[:-1]
    return left


def _generator(*numbers: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(numbers)))


def _identities(units: Units, batch_size: int, k: int) -> int:
    """P, identities of a batch."""
    if k < 1 or batch_size < 1 or batch_size % k:
        near = max(1, round(batch_size / max(k, 1))) * max(k, 1)
        raise PlanError(
            f"a batch holds whole identity groups: {batch_size} images cannot be divided by K = {k}; choose a "
            f"multiple of K, e.g. {near}"
        )
    p = batch_size // k
    if p < 2:
        raise PlanError(
            f"a batch of {batch_size} images with K = {k} of each identity has one identity, so nothing to tell it "
            f"from; choose a batch of at least {2 * k} images"
        )
    if len(units) < 2:
        raise PlanError(
            f"the data has {len(units)} identity with {len(units.records)} images, so nothing to tell it from; "
            "expected two or more"
        )
    if p > len(units):
        raise PlanError(
            f"a batch of {batch_size} images with K = {k} takes {p} distinct identities, the data has {len(units)}; "
            f"choose a batch of at most {len(units) * k} images"
        )
    return p
