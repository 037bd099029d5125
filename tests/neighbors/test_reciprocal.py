"""Shared neighborhoods against their definition row by row, and nearest neighbors exact and approximate."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cion_jax.neighbors import reciprocal, search
from data_prep.denoise.settings import SharedNeighborSettings

OWN = SharedNeighborSettings()


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def overlaps(rows, *options):
    k = min(OWN.k1, math.ceil(math.sqrt(len(rows))), len(rows) - 1)
    near = search.with_self(search.nearest(rows, k)) if k > 0 else np.zeros((len(rows), 1), int)
    return reciprocal.overlaps(rows, near, OWN.k2, OWN.agreement, OWN.min_overlap, *options)


def by_definition(rows):
    """Bhattacharyya coefficients of k-reciprocal distributions, with sets and loops."""
    count = len(rows)
    k = min(OWN.k1, math.ceil(math.sqrt(count)))
    near = [[i, *(j for j in np.argsort(-(rows @ rows[i]), kind="stable") if j != i)] for i in range(count)]
    half = round(k / 2)
    wide = [{j for j in near[i][: k + 1] if i in near[j][: k + 1]} for i in range(count)]
    close = [{j for j in near[i][: half + 1] if i in near[j][: half + 1]} for i in range(count)]
    known = np.zeros((count, count), bool)
    for i in range(count):
        agree = [close[j] for j in wide[i] if len(wide[i] & close[j]) >= 2 / 3 * len(close[j])]
        known[i, list(wide[i].union(*agree))] = True
    weights = np.where(known, np.exp(2 * (rows @ rows.T).astype(np.float64) - 2), 0)
    weights /= weights.sum(1, keepdims=True)
    smooth = np.stack([weights[near[i][: min(OWN.k2, k + 1)]].mean(0) for i in range(count)])
    return np.sqrt(smooth) @ np.sqrt(smooth).T


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(3, 60), st.integers(2, 8))
def test_equals_the_definition(seed, count, people):
    rng = np.random.default_rng(seed)
    rows = unit(rng.standard_normal((people, 16))[rng.integers(0, people, count)] + rng.standard_normal((count, 16)))
    expected = by_definition(rows)
    (i, j), found = overlaps(rows)
    whole = np.zeros((count, count))
    whole[i, j] = found
    listed = np.triu(expected, 1) >= OWN.min_overlap + 1e-6
    np.testing.assert_allclose(whole[listed], np.minimum(expected[listed], 1), atol=1e-6)
    assert (np.triu(expected, 1)[i, j] >= OWN.min_overlap - 1e-6).all()


def test_a_pair_stays_that_is_among_the_largest_of_either_end():
    rng = np.random.default_rng(4)
    rows = unit(rng.standard_normal((4, 16))[rng.integers(0, 4, 80)] + rng.standard_normal((80, 16)))
    (i, j), found = overlaps(rows)
    whole = np.zeros((80, 80))
    whole[i, j] = whole[j, i] = found
    third = np.sort(whole, axis=1)[:, -3]
    expected = np.triu(whole >= np.minimum(third, third[:, None]) - 1e-12) & (whole > 0)
    (i, j), kept = overlaps(rows, 3)
    assert sorted(zip(i.tolist(), j.tolist(), strict=True)) == list(map(tuple, np.argwhere(expected).tolist()))
    np.testing.assert_allclose(kept, whole[i, j], atol=1e-12)


def test_single_precision_finds_the_same_pairs():
    rows = unit(np.random.default_rng(5).standard_normal((50, 16)))
    ((i, j), found), (near, single) = overlaps(rows), overlaps(rows, None, np.float32)
    assert single.dtype == np.float32
    keys = [np.sort(a.astype(np.int64) * 50 + b) for a, b in ((i, j), near)]
    assert np.array_equal(*keys)
    np.testing.assert_allclose(np.sort(single), np.sort(found), atol=1e-6)


def test_two_crowds_share_nothing():
    rng = np.random.default_rng(0)
    rows = unit(np.repeat(np.eye(2), 30, axis=0) + 0.1 * rng.standard_normal((60, 2)))
    (i, j), found = overlaps(rows)
    assert ((i < 30) == (j < 30)).all()
    assert found.max() <= 1
    assert len(overlaps(rows[:1])[1]) == len(overlaps(rows[:0])[1]) == 0
    assert len(overlaps(rows[:2])[1]) == 0


def test_nearest_are_the_largest_products():
    rows = unit(np.random.default_rng(1).standard_normal((3000, 8)))
    found = search.nearest(rows, 5)
    product = rows @ rows.T
    np.fill_diagonal(product, -1)
    np.testing.assert_allclose(np.take_along_axis(product, found, 1), np.sort(product, axis=1)[:, :-6:-1], atol=1e-6)


@pytest.mark.parametrize("tile", [1, 2, 7, 40])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tiles_of_any_size_find_the_same_nearest(monkeypatch, tile, dtype):
    rows = unit(np.random.default_rng(3).standard_normal((40, 6))).astype(dtype)
    product = rows @ rows.T
    np.fill_diagonal(product, -np.inf)
    monkeypatch.setattr(search, "_TILE", tile)
    for k in (1, 5, 39):
        assert search.nearest(rows, k).tolist() == np.argsort(-product, axis=1)[:, :k].tolist()


def test_a_row_is_never_its_own_neighbor():
    assert search.nearest(np.ones((4, 1), np.float32), 3).tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]


def test_several_indexes_find_what_one_finds(monkeypatch):
    class Exact:
        """Compares all, as ScaNN would with luck; rows are found by their place in the index."""

        def __init__(self, rows, k):
            self.rows, self.k = rows, k

        def search_batched_parallel(self, asked):
            product = asked @ self.rows.T
            order = np.argsort(-product, axis=1)[:, : self.k]
            return order.astype(np.uint32), np.take_along_axis(product, order, axis=1)

    monkeypatch.setattr(search, "approximate", lambda _, rows, k: Exact(rows, k))
    rows = unit(np.random.default_rng(6).standard_normal((90, 8)))
    expected = search.nearest(rows, 7)
    for index, piece in ((rows.nbytes, 100), (rows.nbytes // 3, 100), (rows.nbytes // 4, 40)):
        monkeypatch.setattr(search, "_INDEX", index)
        monkeypatch.setattr(search, "_PIECE", piece)
        assert search._scann(None, rows, 7).tolist() == expected.tolist()


def test_a_piece_of_the_search_knows_which_rows_are_its_own():
    found = np.array([[7, 5, 9], [6, 5, 8], [1, 2, 3]])  # of rows 5, 6 and 7, the last of which was not found
    assert search._without_self(found, 2, 5).tolist() == [[7, 9], [5, 8], [1, 2]]


@pytest.mark.slow
def test_scann_finds_what_comparing_all_finds():
    pytest.importorskip("scann")
    rng = np.random.default_rng(2)
    rows = unit(
        rng.standard_normal((2000, 64))[rng.integers(0, 2000, 20_000)] + 0.5 * rng.standard_normal((20_000, 64))
    )
    exact = search.nearest(rows, 10)
    linked = search.identities(rows, 0.1, len(rows))
    found = search.nearest(rows, 10, exact=1000)
    near = np.einsum("nd,nkd->nk", rows, rows[exact]) > 0.7  # the others are ten of many strangers
    hits = (exact[:, :, None] == found[:, None, :]).any(axis=2)
    assert hits[near].mean() > 0.99
    assert (search.identities(rows, 0.1, len(rows), exact=1000) == linked).mean() > 0.99
