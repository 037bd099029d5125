"""The Jaccard distance of Cluster Contrast and DBSCAN on it, against the released code's numbers and by hand."""

import numpy as np
import pytest
import scipy.sparse as sp

from cion_jax.neighbors import jaccard, reciprocal
from cion_jax.neighbors.dbscan import dbscan


@pytest.fixture(scope="module")
def reference(fixtures):
    with np.load(fixtures / "downstream" / "cc_jaccard.npz") as arrays:
        return dict(arrays)


def dense(distance):
    """[n, n]; what is not stored is 1."""
    full = np.ones(distance.shape)
    full[np.repeat(np.arange(len(full)), np.diff(distance.indptr)), distance.indices] = distance.data
    return full


@pytest.mark.parametrize(("k1", "k2"), [(30, 6), (20, 6), (30, 1)])
def test_distances_are_the_released_ones(reference, k1, k2):
    found = dense(jaccard.distances(reference["features"].astype(np.float64), k1, k2))
    if (k1, k2) == (30, 6):
        np.testing.assert_allclose(found, reference["k30_6/distance_f64"], rtol=0, atol=1e-12)
    else:
        np.testing.assert_allclose(found, reference[f"k{k1}_{k2}/distance"], rtol=0, atol=2e-6)
    single = dense(jaccard.distances(reference["features"], k1, k2))
    np.testing.assert_allclose(single, found, rtol=0, atol=2e-6)


def test_labels_are_the_released_ones(reference):
    features, compared = reference["features"].astype(np.float64), 0
    for k1, k2 in ((30, 6), (20, 6), (30, 1)):
        for eps in (0.5, 0.6, 0.7):
            name = f"k{k1}_{k2}/labels_eps{eps}"
            if name in reference:
                distance = jaccard.distances(features, k1, k2, largest=eps)
                assert dbscan(distance, eps, 4).tolist() == reference[name].tolist(), name
                compared += 1
    assert compared == 8


def test_what_is_too_far_is_left_out(reference):
    rows = reference["features"].astype(np.float64)
    whole, near = dense(jaccard.distances(rows)), jaccard.distances(rows, largest=0.6)
    assert near.data.max() <= 0.6
    np.testing.assert_array_equal(dense(near), np.where(whole <= 0.6, whole, 1))


def test_two_crowds_by_hand():
    # Three equal rows and three others; with k1 = 3 everybody knows their own crowd alone, all equally well.
    rows = np.repeat(np.eye(2), 3, axis=0)
    np.testing.assert_allclose(dense(jaccard.distances(rows, 3, 1)), 1 - np.kron(np.eye(2), np.ones((3, 3))))
    with pytest.raises(ValueError, match="got 3 rows, k1 = 3, k2 = 1; expected more than k1 rows"):
        jaccard.distances(rows[:3], 3, 1)
    with pytest.raises(ValueError, match=r"k2 in 1 \.\. k1"):
        jaccard.distances(rows, 3, 4)


def test_a_half_set_that_agrees_by_two_thirds_is_where_the_rules_differ():
    # 0 knows 1, and 1 knows 0; of 1's half set {1, 0, 3} two thirds lie in 0's set {0, 1, 2}.
    near = np.array([[0, 1, 2], [1, 0, 3], [2, 0, 1], [3, 1, 0]])
    sets = reciprocal.k_reciprocal(near).toarray()
    assert sets[0].tolist() == [1, 1, 1, 0]
    assert sets[1].tolist() == [1, 1, 0, 1]
    paper = reciprocal.expanded(near, 3, strict=False).toarray() > 0
    released = reciprocal.expanded(near, 3, strict=True).toarray() > 0
    assert paper[0].tolist() == [True, True, True, True]
    assert released[0].tolist() == [True, True, True, False]
    assert reciprocal.expanded(near, 3, strict=True, agreement=0.6).toarray()[0, 3] > 0


def stored(pairs, count):
    """Symmetric sparse distances from {(i, j): distance}."""
    i, j = np.array(list(pairs)).T
    values = np.array(list(pairs.values()), float)
    return sp.coo_array((np.r_[values, values], (np.r_[i, j], np.r_[j, i])), shape=(count, count)).tocsr()


def test_dbscan_by_hand():
    # 2-3-4 in a row, 3 alone has three neighbors; 0 and 6 are far from all; 5 and 7 touch at eps exactly.
    near = {(2, 3): 0.1, (3, 4): 0.5, (5, 7): 0.5, (0, 6): 0.51}
    assert dbscan(stored(near, 8), 0.5, 3).tolist() == [-1, -1, 0, 0, 0, -1, -1, -1]
    assert dbscan(stored(near, 8), 0.5, 2).tolist() == [-1, -1, 0, 0, 0, 1, -1, 1]
    assert dbscan(stored(near, 8), 0.49, 2).tolist() == [-1, -1, 0, 0, -1, -1, -1, -1]
    assert dbscan(stored(near, 8), 0.49, 1).tolist() == [0, 1, 2, 2, 3, 4, 5, 6]
    assert dbscan(sp.csr_array((0, 0)), 0.5, 4).tolist() == []


def test_a_row_between_two_clusters_is_of_the_first():
    # Cores 0 (0, 1, 2, 3) and 5 (4, 5, 6, 3) share the row 3, which is no core.
    near = {(0, 1): 0.2, (0, 2): 0.2, (0, 3): 0.2, (3, 5): 0.1, (4, 5): 0.2, (5, 6): 0.2}
    assert dbscan(stored(near, 7), 0.3, 4).tolist() == [0, 0, 0, 0, 1, 1, 1]
    mirrored = {(6 - j, 6 - i): value for (i, j), value in near.items()}
    assert dbscan(stored(mirrored, 7), 0.3, 4).tolist() == [0, 0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("seed", range(5))
def test_dbscan_labels_as_scikit_learn_does(seed):
    cluster = pytest.importorskip("sklearn.cluster", reason="scikit-learn is not installed")
    rng = np.random.default_rng(seed)
    points = rng.random((150, 2))
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    for eps, least in ((0.05, 3), (0.08, 4), (0.1, 6)):
        expected = cluster.DBSCAN(eps=eps, min_samples=least, metric="precomputed").fit_predict(apart)
        near = np.where(apart <= 2 * eps, apart, 0)
        assert dbscan(sp.csr_array(near), eps, least).tolist() == expected.tolist()
        assert expected.max() > 1
