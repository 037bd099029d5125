"""What scoring a benchmark leads to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cion_jax.reid.benchmarks import Benchmark
from cion_jax.reid.distances import Distances
from cion_jax.reid.metrics import Pairing, Scores


@dataclass(frozen=True)
class Scored:
    """A benchmark and how well it went.

    Attributes:
      benchmark: with those images that have features.
      pairing: who is who in it.
      distances: of its queries to its gallery.
      scores: of these.
      result: what the JSON file holds: shares, counts, model, protocol.
    """

    benchmark: Benchmark
    pairing: Pairing
    distances: Distances
    scores: Scores
    result: dict[str, Any]
