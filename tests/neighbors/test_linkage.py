"""Agglomerative clustering against one merge at a time, and by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cion_jax.neighbors import linkage, search
from data_prep.denoise import cross_video, single_video
from tests.data_prep import naive

NOTHING = linkage.NO_PAIRS


def one_by_one(count, similarity, weight, limit, cannot, reduce):
    """Merges the most similar allowed pair of groups again and again."""
    groups = [[i] for i in range(count)]
    while True:
        best = None
        for a, b in itertools.combinations(range(len(groups)), 2):
            members = [(min(i, j), max(i, j)) for i in groups[a] for j in groups[b]]
            if any(pair in cannot for pair in members):
                continue
            value = reduce([(similarity.get(p, 0.0), weight[p[0]] * weight[p[1]]) for p in members])
            if value >= limit and (best is None or value > best[0]):
                best = (value, a, b)
        if best is None:
            label = {i: min(group) for group in groups for i in group}
            order = sorted(set(label.values()))
            return [order.index(label[i]) for i in range(count)]
        _, a, b = best
        groups[a] += groups.pop(b)


def mean(values):
    return round(sum(s * w for s, w in values) / sum(w for _, w in values), 9)


def largest(values):
    return max(s for s, _ in values)


@st.composite
def graphs(draw):
    """Distinct similarities, so that there is one right answer, and forbidden pairs."""
    count = draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pairs = list(itertools.combinations(range(count), 2))
    chosen = [p for p in pairs if rng.random() < draw(st.sampled_from([0.3, 0.7, 1.0]))]
    similarity = {p: float(s) for p, s in zip(chosen, rng.random(len(chosen)), strict=True)}
    cannot = {p for p in pairs if rng.random() < draw(st.sampled_from([0.0, 0.2]))}
    return count, similarity, rng.integers(1, 4, count), cannot


def arrays(pairs):
    i, j = np.array(sorted(pairs), np.int64).reshape(-1, 2).T
    return i, j


def listed(similarity):
    """Pairs and their similarities, as linkage takes them."""
    return arrays(similarity), np.array([similarity[p] for p in sorted(similarity)])


@settings(deadline=None, max_examples=150)
@given(graphs(), st.sampled_from([0.1, 0.3, 0.5]))
def test_average_equals_merging_one_by_one(graph, limit):
    count, similarity, weight, cannot = graph
    found = linkage.average(weight, *listed(similarity), limit, arrays(cannot))
    assert found.tolist() == one_by_one(count, similarity, weight, limit, cannot, mean)


@settings(deadline=None, max_examples=150)
@given(graphs(), st.sampled_from([0.1, 0.5, 0.8]))
def test_single_equals_merging_one_by_one(graph, limit):
    count, similarity, _, cannot = graph
    found = linkage.single(count, *listed(similarity), limit, arrays(cannot))
    assert found.tolist() == one_by_one(count, similarity, [1] * count, limit, cannot, largest)


def test_a_chain_does_not_join_a_forbidden_pair():
    # 0 - 1 - 2 - 3 in a row, the link 1 - 2 is the weakest; 0 and 3 are two people.
    chain = (np.array([0, 1, 2]), np.array([1, 2, 3]))
    values = np.array([0.9, 0.6, 0.8])
    assert linkage.single(4, chain, values, 0.5, NOTHING).tolist() == [0, 0, 0, 0]
    assert linkage.single(4, chain, values, 0.5, (np.array([0]), np.array([3]))).tolist() == [0, 0, 1, 1]


def test_one_strong_link_does_not_join_strangers():
    # Two pairs that share one link of 1 among four: mean 1/4.
    pairs = (np.array([0, 1, 2]), np.array([1, 2, 3]))
    ones, weight = np.ones(3), np.ones(4)
    assert linkage.average(weight, pairs, ones * [1, 0.9, 1], 0.25, NOTHING).tolist() == [0, 0, 1, 1]
    assert linkage.average(weight, pairs, ones * [1, 0.9, 1], 0.225, NOTHING).tolist() == [0, 0, 0, 0]
    assert linkage.average(weight[:0], NOTHING, ones[:0], 0.5, NOTHING).tolist() == []


@pytest.mark.parametrize("size", [2, 5, 40])
def test_equal_similarities_come_to_an_end(size):
    pairs = arrays(itertools.combinations(range(size), 2))
    same = np.full(len(pairs[0]), 0.5)
    assert linkage.average(np.ones(size), pairs, same, 0.5, NOTHING).tolist() == [0] * size
    apart = (np.array([0]), np.array([1]))
    assert len(set(linkage.average(np.ones(size), pairs, same, 0.5, apart).tolist())) == 2


def row(*degrees):
    angle = np.radians(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def test_tracklets_that_met_stay_apart_at_levels_2_and_3():
    # Neighbors 10 degrees apart (distance 0.015); the second gap is 12 degrees: the weakest link.
    x = row(0, 10, 22, 32)
    met = (np.array([0]), np.array([3]))
    assert single_video.merge(x, np.arange(4), 0.03).tolist() == [0, 0, 0, 0]
    assert single_video.merge(x, np.arange(4), 0.03, met).tolist() == [0, 0, 1, 1]
    assert cross_video.link(x, 0.03, 1000, met).tolist() == [0, 0, 1, 1]
    assert cross_video.link(x, 0.03, 0, met).tolist() == [0, 0, 1, 1]
    # An image that was discarded forbids nothing, nor does one that moved in with the other.
    assert single_video.merge(x, np.array([0, 1, 2, -1]), 0.03, met).tolist() == [0, 0, 0, -1]
    assert single_video.merge(x, np.array([0, 1, 2, 0]), 0.03, met).tolist() == [0, 0, 0, 0]


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.sampled_from([0.05, 0.3, 0.8]))
def test_without_forbidden_pairs_single_linkage_is_components(seed, limit):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((30, 3))
    far = (np.array([0]), np.array([int(np.argmin(rows @ rows[0]))]))
    pairs = naive.linked(rows, limit, 7)
    free = search.identities(rows, limit, 7)
    assert free.tolist() == naive.connected(30, pairs)
    if free[far[0]] != free[far[1]]:  # forbidden, but not joined anyway
        assert search.identities(rows, limit, 7, far).tolist() == free.tolist()


@pytest.mark.parametrize("block", [1, 3, 1000])
def test_pairs_are_combined_piece_by_piece(monkeypatch, block):
    monkeypatch.setattr(linkage, "_BLOCK", block)
    rng = np.random.default_rng(0)
    i, j = np.sort(rng.integers(0, 7, (2, 60)), axis=0)
    values = rng.integers(1, 9, 60).astype(float)
    for combine, reduce in ((np.add, sum), (np.maximum, max)):
        expected = [
            (p, q, reduce(values[(i == p) & (j == q)]))
            for p, q in itertools.combinations(range(7), 2)
            if ((i == p) & (j == q)).any()
        ]
        (a, b), found = linkage.combined((i, j), values, 7, combine)
        assert list(map(tuple, np.stack([a, b, found], axis=1).tolist())) == expected
    (a, b), found = linkage.combined(NOTHING, np.zeros(0), 7, np.add)
    assert len(a) == len(b) == len(found) == 0
