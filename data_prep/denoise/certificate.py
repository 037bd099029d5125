"""How right a clustering is, estimated without labels: pairwise precision and recall, each with a 90% interval.

Nothing in unlabeled data tells two people who look the same from one person: whatever is estimated rests on worlds of
which the truth is known. So what is seen of a clustering (`evidence`) is compared with what was seen in such worlds, of
many sizes, cameras, noises and features, and what was true there: Gaussian process regression. Where no known world is
like this one the interval is as wide as the spread of all of them. `benchmarks/denoise_certificate.py` makes the
reference and shows how often the truth lies inside.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.denoise.evidence import NAMES

REFERENCE = Path(__file__).parent / "reference_worlds.json"
TARGETS = ("precision", "recall", "input precision", "input recall")
_NORMAL = 1.645  # standard deviations on either side of the middle that hold 90%
_LEAST = 0.1  # of a number's spread over the known worlds
_MANY = 100  # identities from which on chance adds less than there is anyway
_MEAN = 2.0  # standard deviation of the overall mean, in logits


@dataclass(frozen=True)
class Estimate:
    """A share between 0 and 1, and the bounds of its 90% interval."""

    low: float
    value: float
    high: float


@dataclass(frozen=True)
class Certificate:
    """What is estimated of identities, over pairs of images, and of the tracklets that they were found from.

    Attributes:
      precision, recall: of the identities.
      input_precision, input_recall: of the tracklets of the input.
      unlike: distance to the most similar known world, in standard deviations of these.
    """

    precision: Estimate
    recall: Estimate
    input_precision: Estimate
    input_recall: Estimate
    unlike: float

    @property
    def f1(self) -> float:
        """Of the identities, by the estimated values."""
        return _f1(self.precision.value, self.recall.value)

    @property
    def input_f1(self) -> float:
        """Of the input."""
        return _f1(self.input_precision.value, self.input_recall.value)

    @property
    def worse_than_input(self) -> bool:
        """Whether even the best of the intervals is below the worst of the input's."""
        best = _f1(self.precision.high, self.recall.high)
        return best < _f1(self.input_precision.low, self.input_recall.low)

    def told(self) -> str:
        """For people."""
        named = (("precision", self.precision), ("recall", self.recall))
        return ", ".join(f"{name} {each.value:.2f} ({each.low:.2f} to {each.high:.2f})" for name, each in named)


@dataclass(frozen=True)
class Kernel:
    """How alike two worlds are, by their standardized evidence.

    Attributes:
      length: distance over which they become unlike.
      spread: standard deviation of worlds that are not alike, in logits.
      noise: of large worlds that look the same; in small ones chance adds to it.
    """

    length: float
    spread: float
    noise: float

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """[A, B] covariances, without noise."""
        apart2 = ((a[:, None] - b[None]) ** 2).mean(axis=-1)
        return self.spread**2 * np.exp(-apart2 / (2 * self.length**2)) + _MEAN**2


class Regression:
    """Gaussian process regression of logits on evidence."""

    def __init__(self, evidence: np.ndarray, share: np.ndarray, kernel: Kernel):
        """Learns from [w, v] evidence and [w] shares between 0 and 1."""
        self._mean, self._scale = evidence.mean(axis=0), np.maximum(evidence.std(axis=0), _LEAST)
        self._known, self._kernel = (evidence - self._mean) / self._scale, kernel
        self._center = float(_logit(share).mean())
        covariance = kernel(self._known, self._known) + np.diag(_noise2(evidence, kernel))
        self._root = np.linalg.cholesky(covariance)
        apart = np.linalg.solve(self._root, _logit(share) - self._center)
        self._weight = np.linalg.solve(self._root.T, apart)
        self.likelihood = float(-0.5 * apart @ apart - np.log(np.diag(self._root)).sum())

    def __call__(self, evidence: np.ndarray, wider: float = 1.0) -> list[Estimate]:
        """Of [q, v] evidence; `wider` multiplies the interval, in logits."""
        asked = (evidence - self._mean) / self._scale
        across = self._kernel(asked, self._known)
        middle = across @ self._weight + self._center
        known = (np.linalg.solve(self._root, across.T) ** 2).sum(axis=0)
        whole = np.diag(self._kernel(asked, asked)) + _noise2(evidence, self._kernel)
        half = wider * _NORMAL * np.sqrt(np.maximum(whole - known, 1e-9))
        bounds = np.stack([middle - half, middle, middle + half], axis=1)
        return [Estimate(*row) for row in _share(bounds).tolist()]

    def unlike(self, evidence: np.ndarray) -> np.ndarray:
        """[q] root mean square distance to the nearest known evidence, in standard deviations."""
        asked = (evidence - self._mean) / self._scale
        return np.sqrt(((asked[:, None] - self._known[None]) ** 2).mean(axis=-1).min(axis=1))


def _noise2(evidence: np.ndarray, kernel: Kernel) -> np.ndarray:
    """Variances of worlds of their own, by their number of identities."""
    return kernel.noise**2 * (1 + _MANY / np.exp(evidence[:, NAMES.index("identities")]))


def certify(evidence: np.ndarray) -> Certificate:
    """Estimates from the [len(NAMES)] values of `Evidence`."""
    known = _reference()
    found = {name: regression(evidence[None], wider)[0] for name, (regression, wider) in known.items()}
    unlike = float(known["precision"][0].unlike(evidence[None])[0])
    return Certificate(found["precision"], found["recall"], found["input precision"], found["input recall"], unlike)


def learned(reference: Mapping[str, Any]) -> dict[str, tuple[Regression, float]]:
    """Regressions of `TARGETS`, and how much wider their intervals are made, of a reference as its file holds it."""
    evidence = np.array(reference["evidence"], np.float64)
    return {
        name: (
            Regression(evidence, np.array(reference[name], np.float64), Kernel(*reference["kernels"][name])),
            reference["wider"][name],
        )
        for name in TARGETS
    }


def confidences(identity: np.ndarray, weight: np.ndarray, support: np.ndarray, precision: float) -> np.ndarray:
    """[n] of every node, how likely a pair with another of its identity is right; the same for a whole identity.

    What halves of the features find too is more likely right. Support is no probability, so all logits are moved alike
    until the mean over pairs of images is the estimated precision.

    Args:
      identity: [n] int64, 0 .. I-1.
      weight: [n] number of images.
      support: [n], as `evidence.Evidence` has it.
      precision: that was estimated.
    """
    images = np.bincount(identity, weight)
    others = weight * (images[identity] - weight)
    pairs = np.bincount(identity, others)
    mean = np.bincount(identity, others * support) / np.maximum(pairs, 1)
    logits = _logit(mean)
    low, high = -12.0, 12.0
    for _ in range(50):
        moved = (low + high) / 2
        too_high = np.average(_share(logits + moved), weights=pairs) > precision if pairs.sum() else False
        low, high = (low, moved) if too_high else (moved, high)
    return np.where(pairs > 0, _share(logits + low), 1.0)[identity]


@functools.cache
def _reference() -> dict[str, tuple[Regression, float]]:
    found = json.loads(REFERENCE.read_text("utf-8"))
    if tuple(found["names"]) != NAMES:
        raise ValueError(f"{REFERENCE.name} is of other evidence: make it again with benchmarks.denoise_certificate")
    return learned(found)


def _share(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(logit, -30, 30)))


def _logit(share: np.ndarray) -> np.ndarray:
    kept = np.clip(share, 0.01, 0.99)
    return np.log(kept / (1 - kept))


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
