"""Identity groups: which records are seen together, and when. Pure numpy.

A batch consists of whole *identity groups*, K images of one unit each. Which records form group g of epoch e
is a pure function of (seed, e, g, K), and (e, g, K) is one of the step. So a run can start anywhere, on any
number of processes, and sees what an undisturbed run sees there.
"""

from __future__ import annotations

import functools
import itertools
from bisect import bisect_right
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cion_jax.common.errors import UserError
from cion_jax.data.records import Index

UnitKind = Literal["identity", "tracklet", "instance"]

# SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014).
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_GROUP_STREAM, _RECORD_STREAM = 0, 1


MAX_K = 4096  # images of an identity group; more of one person at a time is a mistake


class PlanError(UserError):
    """Settings that no sequence of batches can satisfy."""


@dataclass(frozen=True, eq=False)
class Units:
    """What counts as one person: the images among which an identity group is drawn.

    Attributes:
      records: [N] int64 record numbers, the images of a unit next to each other.
      start: [U+1] int64; unit u owns records[start[u] : start[u+1]], at least one.
      tracklet: [N] int64 source tracklet of every one of `records` where a unit's tracklets take turns, else None.
    """

    records: np.ndarray
    start: np.ndarray
    tracklet: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.start) - 1

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """[U] int64 images of every unit."""
        return np.diff(self.start)

    def groups_per_unit(self, k: int) -> np.ndarray:
        """[U] int64 groups of K images that every unit gives in one epoch: floor(n / K), but at least one."""
        return np.maximum(self.sizes // k, 1)

    @classmethod
    def of(cls, index: Index, kind: UnitKind, turns: bool = False) -> Units:
        """Units of a dataset.

        Args:
          index: of the identity shards.
          kind: `identity`, `tracklet` (source tracklets, the baseline without denoising) or `instance`
            (single images, for K = 1: plain self-distillation).
          turns: whether a unit's tracklets take turns.

        Raises:
          PlanError: tracklets are to take turns and cannot: units are no identities, or no identity has several
            tracklets, one of them of several images.
        """
        if turns and kind != "identity":
            raise PlanError(
                f"config.data.turns=True needs identities, of which tracklets can take turns; config.identity={kind} "
                "has one tracklet in a unit; give config.data.turns=False"
            )
        if turns and not index.take_turns:
            raise PlanError(
                "config.data.turns=True, but no identity of this data has several tracklets, one of them of several "
                "images (a benchmark's are not known); give identity shards that data_prep has made of tracklets, or "
                "config.data.turns=False"
            )
        every = np.arange(len(index.identity))
        if kind == "instance":
            return cls(every, np.append(every, len(every)))
        label = index.identity if kind == "identity" else index.tracklet
        records = np.argsort(label, kind="stable")
        starts = np.flatnonzero(np.diff(label[records], prepend=label[records[0]] - 1))
        return cls(records, np.append(starts, len(records)), index.tracklet[records] if turns else None)

    def shuffled(self, unit: np.ndarray, place: np.ndarray, at: np.ndarray, end: float) -> np.ndarray:
        """[n] order of the images at `place` of `records`, of units `unit`: unit by unit, by random `at` in 0 .. end.

        Where tracklets take turns, one's images lie at equal distances: of K in a row, of the unit's n, about s K / n
        are of a tracklet of s.
        """
        if self.tracklet is None:
            return np.lexsort((at, unit))
        tracklet = self.tracklet[place]
        order = np.lexsort((at, tracklet, unit))
        first = np.flatnonzero(np.append(True, np.diff(unit[order]) | np.diff(tracklet[order])))
        size = np.diff(np.append(first, len(order)))
        begin = np.add.reduceat(at[order] / end, first) % 1  # as random as one of them, and not the least
        spread = np.empty(len(order))
        spread[order] = (np.arange(len(order)) - np.repeat(first - begin, size)) / np.repeat(size, size)
        return np.lexsort((spread, unit))


class EpochPlan:
    """All identity groups of one epoch, in order.

    A unit with n >= K images gives floor(n / K) groups of distinct images from a permutation of its images
    that is fresh in every epoch, so that the n mod K images left out rotate. A unit with fewer gives one group:
    all its images, repeated as evenly as possible. The order of the groups is fresh in every epoch, too.
    """

    def __init__(self, units: Units, seed: int, epoch: int, k: int):
        """Takes O(number of groups); `group` does not depend on it."""
        self._units, self._k = units, k
        self._first = np.concatenate([[0], np.cumsum(units.groups_per_unit(k))])
        self._record_key = _key(seed, epoch, _RECORD_STREAM)
        shuffle = _stream(_key(seed, epoch, _GROUP_STREAM), np.arange(len(self)))
        self._order = np.argsort(shuffle, kind="stable")

    def __len__(self) -> int:
        return int(self._first[-1])

    def group(self, g: int) -> np.ndarray:
        """[K] int64 record numbers of group g; IndexError outside 0 .. len-1."""
        return self.groups(np.array([g]))[0]

    def groups(self, which: slice | np.ndarray) -> np.ndarray:
        """[G, K] int64 record numbers of many groups at once."""
        slots = self._order[which]
        units = np.searchsorted(self._first, slots, side="right") - 1
        distinct, of_group = np.unique(units, return_inverse=True)
        shuffled, start = self._shuffled(distinct)
        place = (slots - self._first[units])[:, None] * self._k + np.arange(self._k)
        return shuffled[start[of_group][:, None] + place % self._units.sizes[units][:, None]]

    def _shuffled(self, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Records of the given units, each unit's in this epoch's order, and where each unit begins."""
        sizes = self._units.sizes[units]
        start = np.cumsum(sizes) - sizes
        owner = np.repeat(np.arange(len(units)), sizes)
        place = np.arange(len(owner)) + (self._units.start[units] - start)[owner]
        order = self._units.shuffled(owner, place, _stream(self._record_key, place), 2.0**64)
        return self._units.records[place[order]], start


@dataclass(frozen=True)
class Position:
    """Where a training step lies: in which pass through the data, the how manieth batch of it, and with which K.

    A pass is an epoch unless epochs have a length of their own.
    """

    epoch: int
    step_in_epoch: int
    k: int


class Timeline:
    """Which pass, batch and K every training step has.

    K changes with the epoch and every K gives another number of groups, hence of steps. The last, incomplete
    batch of a pass is left out; where K changes within a pass, the next one begins.

    Attributes:
      batch_size: images in the global batch.
      steps_per_epoch: one int for every epoch.
      total_steps: their sum.
    """

    def __init__(
        self,
        units: Units,
        epochs: int,
        batch_size: int,
        curriculum: tuple[tuple[int, int], ...],
        *,
        steps_per_epoch: int = 0,
    ):
        """Lays the steps out.

        Args:
          units: of the dataset.
          epochs: number of epochs.
          batch_size: images in the global batch, a multiple of every K.
          curriculum: (first epoch, K) pairs, from epoch 0 on, e.g. ((0, 2), (40, 4), (60, 6), (80, 8)).
          steps_per_epoch: of every epoch, whatever the passes are, which go on from epoch to epoch; 0 makes every pass
            an epoch.

        Raises:
          PlanError: the settings contradict each other or the data; says what would work.
        """
        self._starts, self._ks = _check_curriculum(curriculum)
        _check_batch(batch_size, self._ks, units)
        self.batch_size = batch_size
        per_k = {k: int(units.groups_per_unit(k).sum()) // (batch_size // k) for k in set(self._ks)}
        ks = [self.k(epoch) for epoch in range(epochs)]
        for k in ks:
            if not per_k[k]:
                raise PlanError(_too_few(units, batch_size, k))
        self.steps_per_epoch = tuple(steps_per_epoch or per_k[k] for k in ks)
        self._ends = np.cumsum(self.steps_per_epoch)
        self.total_steps = int(self._ends[-1]) if epochs else 0
        self._phases = self.phases()
        self._pass = [per_k[self._k_at(phase.start)] for phase in self._phases]
        passes = (-(-len(phase) // steps) for phase, steps in zip(self._phases, self._pass, strict=True))
        self._passes_before = [0, *itertools.accumulate(passes)]

    def k(self, epoch: int) -> int:
        """Images per identity group in an epoch."""
        return self._ks[bisect_right(self._starts, epoch) - 1]

    def at(self, step: int) -> Position:
        """Position of a step; IndexError outside 0 .. total_steps-1."""
        if not 0 <= step < self.total_steps:
            raise IndexError(f"step {step} is outside the run's 0 .. {self.total_steps - 1}")
        at = bisect_right(self._phases, step, key=lambda phase: phase.start) - 1
        number, place = divmod(step - self._phases[at].start, self._pass[at])
        return Position(self._passes_before[at] + number, place, self._k_at(step))

    def phases(self, start: int = 0) -> list[range]:
        """Runs of steps with the same K, from `start` on: between them the shape of a group changes."""
        ends = [int(self._ends[e - 1]) for e in self._starts[1:] if e <= len(self.steps_per_epoch)]
        edges = [start, *(e for e in ends if e > start), self.total_steps]
        return [range(a, b) for a, b in itertools.pairwise(edges) if a < b]

    def _k_at(self, step: int) -> int:
        return self.k(int(np.searchsorted(self._ends, step, side="right")))


def _key(*numbers: int) -> np.uint64:
    """A 64-bit key of small numbers: other numbers, or the same in another order, give an unrelated key."""
    return np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]


def _stream(key: np.uint64, i: np.ndarray) -> np.ndarray:
    """Number i of the SplitMix64 sequence that starts at `key`, for any array of i."""
    z = key + (i.astype(np.uint64) + np.uint64(1)) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX[0]
    z = (z ^ (z >> np.uint64(27))) * _MIX[1]
    return z ^ (z >> np.uint64(31))


def _check_curriculum(curriculum: tuple[tuple[int, int], ...]) -> tuple[list[int], list[int]]:
    starts, ks = [e for e, _ in curriculum], [k for _, k in curriculum]
    if not starts or starts[0] != 0 or any(b <= a for a, b in itertools.pairwise(starts)):
        raise PlanError(f"the curriculum is (epoch, K) pairs with rising epochs from 0 on, got {curriculum}")
    if min(ks) < 1 or max(ks) > MAX_K:
        raise PlanError(f"K is 1 to {MAX_K} images per identity group, got the curriculum {curriculum}")
    return starts, ks


def _check_batch(batch_size: int, ks: list[int], units: Units) -> None:
    if batch_size < 1 or any(batch_size % k for k in ks):
        multiple = int(np.lcm.reduce(ks))
        near = max(1, round(batch_size / multiple)) * multiple
        raise PlanError(
            f"a batch holds whole identity groups: {batch_size} images cannot be divided by every K of "
            f"{sorted(set(ks))}; choose a multiple of {multiple}, e.g. {near}"
        )
    if max(ks) > 1 and units.sizes.max() == 1:
        raise PlanError(
            f"every unit has one image, so groups of K = {max(ks)} would repeat it; set the curriculum to ((0, 1),)"
        )


def _too_few(units: Units, batch_size: int, k: int) -> str:
    groups = int(units.groups_per_unit(k).sum())
    return (
        f"an epoch has no full batch: {len(units.records)} images of {len(units)} units give {groups} groups "
        f"of K = {k}, a batch of {batch_size} images takes {batch_size // k}; "
        f"choose a batch of at most {groups * k} images"
    )
