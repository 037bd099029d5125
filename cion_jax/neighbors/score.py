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
    grouped, wanted, size, label, true = _table(labels, truth)
    pairs, images = _pairs(size), len(labels)
    return {
        **_named("pairwise", _ratio(pairs, _pairs(grouped)), _ratio(pairs, _pairs(wanted))),
        **_named(
            "bcubed",
            float(np.sum(size**2 / grouped[label])) / images,
            float(np.sum(size**2 / wanted[true])) / images,
        ),
    }


def adjusted_rand(labels: np.ndarray, truth: np.ndarray) -> float:
    """Adjusted Rand index (Hubert and Arabie, 1985): 1 for equal groupings, about 0 for unrelated ones.

    Arguments as of `score`, at least one image.
    """
    grouped, wanted, size, _, _ = _table(labels, truth)
    found, ours, theirs = _pairs(size), _pairs(grouped), _pairs(wanted)
    expected = _ratio(ours * theirs, _pairs(np.array([len(labels)])))
    most = (ours + theirs) / 2
    return 1.0 if most == expected else (found - expected) / (most - expected)


def unchanged(labels: np.ndarray, before: np.ndarray) -> float:
    """Share of images that stay where they were.

    An image stays where its cluster and the one that it was in share more images with each other than either does with
    any other; or where it has none, and had none.

    Args:
      labels, before: [n] int64 clusters now and then; -1 for none. Numbers need not be the same.
    """
    both = (labels >= 0) & (before >= 0)
    stays = int(((labels < 0) & (before < 0)).sum())
    if both.any():
        _, _, size, now, then = _table(labels[both], before[both])
        order = np.lexsort((then, now, -size))
        _, first_now = np.unique(now[order], return_index=True)
        _, first_then = np.unique(then[order], return_index=True)
        stays += int(size[order][np.intersect1d(first_now, first_then)].sum())
    return stays / max(len(labels), 1)


def _table(labels: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, ...]:
    """Images of every label and of every truth; and of every pair of these that occurs how many, which and which."""
    labels, truth = _singled_out(labels), _singled_out(truth)
    grouped, wanted = np.bincount(labels), np.bincount(truth)
    cells, size = np.unique(labels * len(wanted) + truth, return_counts=True)
    return grouped, wanted, size, *np.divmod(cells, len(wanted))


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
