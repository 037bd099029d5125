"""How well identities agree with the truth, from counts alone: no pair is ever formed."""

from __future__ import annotations

import numpy as np


def score(labels: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Pairwise and BCubed precision, recall and F1.

    Args:
      labels: [n] int64 identities; an image without one (-1) stands alone, which costs recall, not precision.
      truth: [n] int64 true identities; a crop of nobody (-1) is an identity of its own, so that whatever it
        is grouped with is wrong. Images of unknown truth must be left out by the caller.

    Returns:
      {pairwise,bcubed}_{precision,recall,f1}, each in 0 .. 1. Where there is no pair to be wrong about
      (nothing grouped, or nothing to be found) a pairwise ratio is 1. Empty where n is 0.
    """
    if not len(labels):
        return {}
    labels, truth = _singled_out(labels), _singled_out(truth)
    grouped, wanted = np.bincount(labels), np.bincount(truth)
    cells, size = np.unique(labels * len(wanted) + truth, return_counts=True)
    label, true = np.divmod(cells, len(wanted))
    pairs = _pairs(size)
    images = len(labels)
    return {
        **_named("pairwise", _ratio(pairs, _pairs(grouped)), _ratio(pairs, _pairs(wanted))),
        **_named(
            "bcubed",
            float(np.sum(size**2 / grouped[label])) / images,
            float(np.sum(size**2 / wanted[true])) / images,
        ),
    }


def _singled_out(labels: np.ndarray) -> np.ndarray:
    """Numbers labels 0, 1, 2, ...; every -1 gets a number of its own."""
    alone = labels < 0
    _, numbers = np.unique(np.where(alone, -1 - np.arange(len(labels)), labels), return_inverse=True)
    return numbers


def _pairs(sizes: np.ndarray) -> int:
    return int(np.sum(sizes.astype(np.int64) * (sizes - 1)) // 2)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def _named(kind: str, precision: float, recall: float) -> dict[str, float]:
    both = precision + recall
    f1 = 2 * precision * recall / both if both else 0.0
    return {f"{kind}_precision": precision, f"{kind}_recall": recall, f"{kind}_f1": f1}
