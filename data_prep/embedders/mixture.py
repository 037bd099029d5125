"""Several feature extractors as one: their features side by side."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from data_prep.types import Embedder

BATCH = 1024  # crops held at a time


class Mixture:
    """Features of several extractors, side by side.

    All have the same length, so the cosine distance of two crops is the mean of their distances by each extractor. A
    crop that one of them makes nothing of (features of 0) is nothing to all.
    """

    def __init__(self, parts: Sequence[Embedder]):
        """Takes two extractors or more."""
        self._parts = parts
        self.name = "+".join(part.name for part in parts)
        self.digest = hashlib.sha256("+".join(part.digest for part in parts).encode()).hexdigest()

    def __call__(self, crops: Iterable[np.ndarray]) -> np.ndarray:
        """[h, w, 3] uint8 RGB crops of any sizes -> [n, d] float32, L2-normalized; d is the sum of all widths."""
        crops = iter(crops)
        found = [np.concatenate([part([]) for part in self._parts], axis=1)]
        while batch := list(itertools.islice(crops, BATCH)):
            rows = [part(batch) for part in self._parts]
            seen = np.logical_and.reduce([row.any(axis=1) for row in rows])
            found.append(np.concatenate(rows, axis=1) / np.float32(np.sqrt(len(rows))) * seen[:, None])
        return np.concatenate(found)
