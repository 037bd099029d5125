"""How well distances between queries and a gallery find the same person: mAP, mINP, CMC, TPR at FPR. NumPy only.

The protocol is Market-1501's: gallery images of the query's own identity *and* camera are taken out for that
query, and a query that has no match left is not counted. mINP is from Ye et al., "Deep Learning for Person
Re-identification: A Survey and Outlook", arXiv 2001.04193.

Every figure follows from the ranks of the matches, and a rank is a count of nearer images. So no row is sorted, and
distances exist a block of queries at a time.

Shape suffixes: Q queries, G gallery images, M matches of one query, J its junk, R ranks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cion_jax.reid.distances import Distances, ScoreError, blocks

FPRS = (1e-4, 1e-3, 1e-2)


@dataclass(frozen=True)
class Operating:
    """What telling "same" from "different" by a threshold achieves on the pairs that are ranked.

    Attributes:
      fpr: the share of pairs of different people that may be taken for the same.
      tpr: the share of pairs of one person that are found, 0 to 1.
      threshold: pairs *nearer* than this are called the same; it is as large as `fpr` allows.
    """

    fpr: float
    tpr: float
    threshold: float


@dataclass(frozen=True)
class Scores:
    """Result of `evaluate`.

    Attributes:
      ap: [valid queries] float64, average precision of every counted query, 0 to 1.
      inp: [valid queries] float64, inverse negative penalty: matches / rank of the last match.
      first: [valid queries] int64, rank of the first match.
      cmc: [R] float64, share of counted queries whose first match is among the first 1..R gallery images.
      valid: [valid queries] int64, which queries are counted.
      operating: one for each of `FPRS`, over all pairs of a counted query and a gallery image that stays; none where
        every pair is a match.
    """

    ap: np.ndarray
    inp: np.ndarray
    first: np.ndarray
    cmc: np.ndarray
    valid: np.ndarray
    operating: tuple[Operating, ...]

    @property
    def mean_ap(self) -> float:
        """mAP, 0 to 1."""
        return float(self.ap.mean())

    @property
    def mean_inp(self) -> float:
        """mINP, 0 to 1."""
        return float(self.inp.mean())

    def rank(self, r: int) -> float:
        """Rank-r accuracy, 0 to 1."""
        return float(self.cmc[r - 1])


class Pairing:
    """Which gallery images are a query's matches and which are junk to it."""

    def __init__(
        self, query_ids: np.ndarray, gallery_ids: np.ndarray, query_cams: np.ndarray, gallery_cams: np.ndarray
    ):
        """Takes [Q], [G], [Q], [G] identities and cameras."""
        self.shape = len(query_ids), len(gallery_ids)
        if (len(query_cams), len(gallery_cams)) != self.shape:
            raise ScoreError(
                f"expected cameras of {self.shape[0]} queries and {self.shape[1]} gallery images, got "
                f"{len(query_cams)} and {len(gallery_cams)}"
            )
        self._order = np.argsort(gallery_ids, kind="stable")
        ordered = np.asarray(gallery_ids)[self._order]
        self._start, self._stop = (np.searchsorted(ordered, query_ids, side) for side in ("left", "right"))
        self._query_cams, self._gallery_cams = query_cams, gallery_cams

    def of(self, query: int) -> tuple[np.ndarray, np.ndarray]:
        """([M] matches, [J] junk) of a query, in gallery order."""
        same = self._order[self._start[query] : self._stop[query]]
        junk = self._gallery_cams[same] == self._query_cams[query]
        return same[~junk], same[junk]


def evaluate(distances: Distances, pairing: Pairing, *, ranks: int = 50) -> Scores:
    """Scores distances; average precision is the non-interpolated one.

    Equal distances are ranked in gallery order.

    Args:
      distances: of the queries to the gallery.
      pairing: who is who. What matches no query is a distractor.
      ranks: length of the CMC curve; with a smaller gallery the curve ends flat.

    Raises:
      ScoreError: shapes that do not fit each other, or no query with a match.
    """
    if distances.shape != pairing.shape:
        raise ScoreError(f"expected distances {pairing.shape}, as there are labels, got {distances.shape}")
    found = [(query, *pairing.of(query)) for query in range(pairing.shape[0])]
    counted = {query: (match, junk) for query, match, junk in found if len(match)}
    if not counted:
        raise ScoreError("no query has a match of another camera in the gallery; expected at least one")
    different = sum(pairing.shape[1] - len(match) - len(junk) for match, junk in counted.values())
    nearest = Smallest(min(_allowed(different, max(FPRS)) + 1, different))
    ap, inp, first, same = [], [], [], []
    for rows, distance_BG in blocks(distances):
        for query in filter(counted.__contains__, range(rows.start, rows.stop)):
            row_G, (match, junk) = distance_BG[query - rows.start], counted[query]
            rank = ranks_of(row_G, match, junk)
            ap.append(average_precision(rank))
            inp.append(len(rank) / rank[-1])
            first.append(rank[0])
            same.append(row_G[match])
            row_G[match] = row_G[junk] = np.inf
            nearest.add(row_G)
    cmc = (np.array(first)[:, None] <= np.arange(1, ranks + 1)).mean(0)
    operating = tuple(operating_points(np.concatenate(same), nearest.sorted(), different))
    return Scores(np.array(ap), np.array(inp), np.array(first), cmc, np.array(list(counted)), operating)


def ranks_of(distance_G: np.ndarray, match: np.ndarray, junk: np.ndarray) -> np.ndarray:
    """[M] int64 ranks of a query's matches among what is not junk, from 1, rising; where equal in gallery order."""
    rank = [
        1
        + np.count_nonzero(distance_G[:at] <= distance_G[at])
        + np.count_nonzero(distance_G[at + 1 :] < distance_G[at])
        for at in match
    ]
    junk_J, match_M1 = distance_G[junk], distance_G[match][:, None]
    ahead = (junk_J < match_M1) | ((junk_J == match_M1) & (junk < match[:, None]))
    return np.sort(rank - ahead.sum(axis=1))


def average_precision(rank: np.ndarray) -> float:
    """Of a query whose [M] matches have these ranks, from 1, rising: the mean precision at every match, 0 to 1."""
    return float((np.arange(1, len(rank) + 1) / rank).mean())


def operating_points(same: np.ndarray, nearest: np.ndarray, different: int) -> Iterable[Operating]:
    """One for each of `FPRS`; none without pairs of different people.

    Args:
      same: distances of pairs of one person.
      nearest: the smallest distances of pairs of different people, rising; one more than the largest FPR allows.
      different: number of all of these pairs.
    """
    for fpr in FPRS if different else ():
        threshold = nearest[_allowed(different, fpr)]
        yield Operating(fpr, float((same < threshold).mean()), float(threshold))


class Smallest:
    """The k smallest of many numbers that come a few at a time."""

    def __init__(self, k: int):
        """Holds at most about 2 k numbers."""
        self._k, self._bound = k, np.inf
        self._held: list[np.ndarray] = []
        self._count = 0

    def add(self, numbers: np.ndarray) -> None:
        """Takes [n] numbers; infinite ones are none."""
        near = numbers[numbers < self._bound]
        self._held.append(near)
        self._count += len(near)
        if self._count > 2 * self._k + len(numbers):
            self._held = [self._smallest()]
            self._count, self._bound = self._k, self._held[0].max()

    def sorted(self) -> np.ndarray:
        """The k smallest, rising."""
        return np.sort(self._smallest())

    def _smallest(self) -> np.ndarray:
        held = np.concatenate(self._held)
        return np.partition(held, self._k - 1)[: self._k] if self._k < len(held) else held


def _allowed(different: int, fpr: float) -> int:
    """How many of the pairs of different people may be called the same; safe from rounding (0.01 x 300 is 3)."""
    return int(different * fpr * (1 + 1e-12))
