"""DBSCAN on distances that are known already, as scikit-learn labels it (Ester et al., 1996)."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.sparse import csgraph

from cion_jax.neighbors.labels import numbered


def dbscan(distance: sp.csr_array, eps: float, min_samples: int) -> np.ndarray:
    """Density-based clusters.

    A row with at least `min_samples` neighbors, itself counted, is a core row. Core rows that are neighbors are of one
    cluster; another row is of the first cluster with a core row among its neighbors.

    Args:
      distance: [n, n], symmetric. A pair that is not stored is further apart than `eps`; zeros are stored. The diagonal
        is of no importance: every row is its own neighbor.
      eps: distance up to which, and including which, two rows are neighbors.
      min_samples: at least 1.

    Returns:
      [n] int64 clusters, numbered by their first core row; -1: an outlier.
    """
    count = distance.shape[0]
    pairs = distance.tocoo()
    near = (pairs.data <= eps) & (pairs.row != pairs.col)
    i, j = pairs.row[near].astype(np.int64), pairs.col[near].astype(np.int64)
    core = np.bincount(i, minlength=count) + 1 >= min_samples
    both = core[i] & core[j]
    graph = sp.coo_array((np.ones(both.sum(), np.int8), (i[both], j[both])), shape=(count, count))
    group = csgraph.connected_components(graph.tocsr(), directed=False)[1]
    label = np.full(count, count)
    label[core] = numbered(group[core])
    border = core[i] & ~core[j]
    np.minimum.at(label, j[border], label[i[border]])
    return np.where(label < count, label, -1)
