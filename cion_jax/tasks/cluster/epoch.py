"""What an epoch of cluster contrast begins with: clusters, their centroids, and how they compare with what is known."""

from __future__ import annotations

import numpy as np

from cion_jax.neighbors import cosine, score
from cion_jax.tasks.cluster import labels
from cion_jax.tasks.cluster.config import Config
from cion_jax.training.metrics import TrainingStopped


def check(label: np.ndarray, room: int, epoch: int, config: Config) -> None:
    """Looks at an epoch's clusters before it is trained on them.

    Args:
      label: [N] int64 clusters, -1: an outlier.
      room: for how many clusters the memory is.
      epoch: for the message.
      config: of the run.

    Raises:
      TrainingStopped: there is nothing to tell apart, or more than the memory has room for.
    """
    count, outliers = int(label.max(initial=-1)) + 1, int((label < 0).sum())
    method = labels.PSEUDO_LABELS[config.labels.method]
    seen = f"epoch {epoch}: {config.labels.method} finds {count:,} clusters in {len(label):,} images"
    if count < 2:
        wish = method.if_one if count else method.if_none
        raise TrainingStopped(
            f"{seen}, {outliers:,} are outliers, so there is nothing to tell apart; {wish}, and another --workdir"
        )
    if count > room:
        raise TrainingStopped(
            f"{seen}, the memory has room for {room:,}; give config.memory.size={config.memory.size - room + count} or "
            "more, or 0 for as many as there can be, and another --workdir"
        )


def centroids(features: np.ndarray, label: np.ndarray, size: int) -> np.ndarray:
    """[size, D] float32: the mean of every cluster's features [N, D], of unit length; zeros beyond the clusters."""
    count = int(label.max(initial=-1)) + 1
    memory = np.zeros((size, features.shape[1]), np.float32)
    memory[:count] = cosine.unit(cosine.centroids([(features, label)], count))
    return memory


def measured(
    features: np.ndarray, label: np.ndarray, before: np.ndarray | None, truth: np.ndarray | None
) -> dict[str, float]:
    """Numbers about an epoch's clusters.

    Args:
      features: [N, D]; zeros for images that cannot be read.
      label: [N] int64 clusters, two or more; -1: an outlier.
      before: those of the epoch before, None where there was none.
      truth: [N] int64 who is on the images, -1 for nobody in particular; only looked at. None: not known.
    """
    sizes = np.bincount(label[label >= 0])
    row = {
        "clusters": len(sizes),
        "outliers": float(np.mean(label < 0)),
        "unreadable": int((~features.any(axis=1)).sum()),
        "smallest_cluster": int(sizes.min()),
        "median_cluster": float(np.median(sizes)),
        "largest_cluster": int(sizes.max()),
    }
    if before is not None and len(before) == len(label):
        row["unchanged"] = score.unchanged(label, before)
    if truth is not None:
        row["ari"] = score.adjusted_rand(label, truth)
        row |= {name: value for name, value in score.score(label, truth).items() if name.startswith("pairwise")}
        row["bcubed_f1"] = score.score(label, truth)["bcubed_f1"]
    return row


def describe(epoch: int, row: dict[str, float]) -> str:
    """`measured` for people."""
    lost = f", {row['unreadable']:,} images cannot be read" if row["unreadable"] else ""
    known = "" if "ari" not in row else f"; truth, only looked at: ARI {row['ari']:.3f}, F1 {row['pairwise_f1']:.3f}"
    stay = f", {row['unchanged']:.0%} of the images stay" if "unchanged" in row else ""
    return (
        f"epoch {epoch}: {row['clusters']:,} clusters of {row['smallest_cluster']:,} to {row['largest_cluster']:,} "
        f"images, {row['outliers']:.0%} outliers{stay}{lost}{known}"
    )
