import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cion_jax.neighbors import search
from data_prep.denoise.cross_video import link
from data_prep.denoise.settings import SearchSettings
from tests.data_prep import naive


@settings(deadline=None)
@given(naive.videos(), naive.thresholds, st.integers(0, 12))
def test_equals_the_definition(video, sigma, r_s):
    means = video[0].astype(np.float64)
    expected = naive.connected(len(means), naive.linked(means, sigma, r_s or len(means)))
    assert link(means, sigma, r_s).tolist() == expected


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(0, 60), st.sampled_from([0.0, 0.1, 0.3, 0.8]))
def test_tiles_of_any_size_give_the_same(seed, half_width, threshold):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((50, 3))[rng.integers(0, 50, 50)]
    expected = set(naive.linked(rows, threshold, half_width))
    before, search._BLOCK = search._BLOCK, int(rng.integers(1, 20))
    try:
        found = [p for i, j in search.links(rows, threshold, half_width) for p in zip(i, j, strict=True)]
        labels = search.components(50, search.links(rows, threshold, half_width))
    finally:
        search._BLOCK = before
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert labels.tolist() == naive.connected(50, expected)


def test_the_band_product_decides_as_float64_does():
    # Rows 1e-8 to either side of the threshold: float32 alone (5e-7 here) could not tell.
    rng = np.random.default_rng(0)
    a = rng.standard_normal(64)
    a /= np.linalg.norm(a)
    b = rng.standard_normal(64)
    b -= (b @ a) * a
    b /= np.linalg.norm(b)
    for shift, expected in ((-1e-8, 1), (0.0, 1), (1e-8, 0)):
        cos = 1 - (0.18 + shift)
        rows = np.stack([a, cos * a + np.sqrt(1 - cos**2) * b])
        assert sum(len(i) for i, _ in search.links(rows, 0.18, 1)) == expected


def test_the_range_cuts_and_a_chain_reaches_further():
    # The same person at places 0, 2, 4 of the row, others between.
    me, other = [1.0, 0, 0], [[0, 1.0, 0], [0, 0, 1.0]]
    row = np.array([me, other[0], me, other[1], me])
    assert link(row, 0.18, 1).tolist() == [0, 1, 2, 3, 4]
    assert link(row, 0.18, 2).tolist() == [0, 1, 0, 2, 0]


def test_no_tracklets():
    assert link(np.zeros((0, 0)), 0.18, 1000).tolist() == []


def test_everything_linked_in_bounded_pieces():
    rows = np.ones((3000, 4))
    assert (link(rows, 0.18, 3000) == 0).all()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.1, 0.3]))
def test_links_of_some_rows_and_of_the_nearest_are_those_of_the_definition(seed, threshold):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((70, 3))[rng.integers(0, 70, 70)]
    expected = set(naive.linked(rows, threshold, 70))
    some = rng.choice(70, 9, replace=False)
    found = [pair for i, j in search.around(rows, some, threshold) for pair in zip(i, j, strict=True)]
    assert len(found) == len(set(found))
    assert set(found) == {p for i, j in expected for p in ((i, j), (j, i)) if p[0] in some}
    # Everybody is among the 64 nearest of 70 rows where at most 64 are that near.
    assert {p for i, j in search.near_links(rows, threshold) for p in zip(i, j, strict=True)} == expected


@pytest.mark.slow
def test_scann_finds_the_links_of_many_rows():
    rng = np.random.default_rng(0)
    person = rng.integers(0, 800, 4000)
    rows = rng.standard_normal((800, 64))[person] + 0.3 * rng.standard_normal((4000, 64))
    exact = {p for i, j in search.links(rows, 0.2, 4000) for p in zip(i, j, strict=True)}
    found = {p for i, j in search.near_links(rows, 0.2, 1000) for p in zip(i, j, strict=True)}
    labels = link(rows, 0.2, 0, settings=SearchSettings(exact_rows=1000))
    assert found <= exact
    assert len(found) >= 0.99 * len(exact) > 5000
    people = len(np.unique(person))
    assert (len(np.unique(person * 4000 + labels)), labels.max() + 1) == (people, people)
