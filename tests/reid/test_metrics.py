"""Metrics against the reference numbers and against values worked out by hand."""

import itertools
import json

import numpy as np
import pytest

from cion_jax.reid import distances, metrics, nearest, rerank
from cion_jax.reid.distances import Between, Given, ScoreError

VARIANTS = ["".join(v) for v in itertools.product(distances.METRICS, ["", "_aqe5", "_aqe10"], ["", "_rerank"])]


@pytest.fixture(scope="module")
def reference(fixtures):
    with np.load(fixtures / "evaluation.npz") as arrays:
        return dict(arrays), json.loads((fixtures / "evaluation.json").read_text())


def expanded(arrays, k):
    both = np.concatenate([arrays["query_features"], arrays["gallery_features"]])
    return np.split(nearest.expand(both, k), [len(arrays["query_features"])])


@pytest.mark.parity
@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_reference(reference, variant):
    arrays, expected = reference
    metric, *steps = variant.split("_")
    query, gallery = arrays["query_features"], arrays["gallery_features"]
    for step in steps:
        if step.startswith("aqe"):
            query, gallery = expanded(arrays, int(step.removeprefix("aqe")))
    between = (rerank.Reranked if "rerank" in steps else Between)(query, gallery, metric)
    ids = [arrays[f"{part}_{what}"] for what in ("ids", "cams") for part in ("query", "gallery")]
    scores = metrics.evaluate(between, metrics.Pairing(*ids))
    distance = between.rows(slice(None))

    np.testing.assert_array_equal(scores.valid, arrays["valid_query_index"])
    np.testing.assert_allclose(scores.ap, arrays[f"{variant}/ap"], atol=1e-9)
    np.testing.assert_allclose(scores.inp, arrays[f"{variant}/inp"], atol=1e-9)
    np.testing.assert_allclose(scores.cmc, arrays[f"{variant}/cmc"], atol=1e-6)  # stored from float32
    wanted = expected["results"][variant]
    assert scores.mean_ap == pytest.approx(wanted["mAP"], abs=1e-9)
    assert scores.mean_inp == pytest.approx(wanted["mINP"], abs=1e-9)
    for rank in (1, 5, 10):
        assert scores.rank(rank) == pytest.approx(wanted[f"rank{rank}"], abs=1e-6)
    if f"{variant}/distance" in arrays:
        stored = arrays[f"{variant}/distance"]
        np.testing.assert_allclose(distance, stored, rtol=0, atol=1e-5 * stored.max())


@pytest.mark.parity
@pytest.mark.parametrize("k", [5, 10])
def test_query_expansion_equals_the_reference(reference, k):
    arrays, _ = reference
    for part, mine in zip(("query", "gallery"), expanded(arrays, k), strict=True):
        stored = arrays[f"aqe{k}/{part}_features"]
        np.testing.assert_allclose(mine, stored, rtol=0, atol=1e-5 * abs(stored).max())


# Gallery identities and cameras in the order of distance, then AP, INP, rank of the first match.
BY_HAND = {
    "all matches first": ([7, 7, 3, 4], [2, 3, 2, 2], 1, 1, 1),
    "matches at 1 and 3": ([7, 3, 7, 4], [2, 2, 3, 2], (1 + 2 / 3) / 2, 2 / 3, 1),
    "junk takes no rank": ([7, 7, 3, 7], [1, 2, 2, 3], (1 + 2 / 3) / 2, 2 / 3, 1),
    "junk between": ([3, 7, 7, 4], [1, 1, 2, 2], 1 / 2, 1 / 2, 2),
    "distractors count": ([0, 0, 7, 0], [1, 2, 2, 3], 1 / 3, 1 / 3, 3),
    "same camera, another person": ([3, 7, 4, 5], [1, 2, 1, 1], 1 / 2, 1 / 2, 2),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_by_hand(case):
    ids, cams, ap, inp, first = BY_HAND[case]
    distance = np.array([[0.1, 0.2, 0.3, 0.4]])
    scores = metrics.evaluate(distance, np.array([7]), np.array(ids), np.array([1]), np.array(cams), ranks=4)
    assert scores.mean_ap == pytest.approx(ap)
    assert scores.mean_inp == pytest.approx(inp)
    np.testing.assert_array_equal(scores.cmc, np.arange(1, 5) >= first)


def test_queries_without_match_are_not_counted():
    ids, cams = np.array([7, 8]), np.array([2, 1])
    query = np.array([8, 7, 9])  # 8: only its own camera; 7: found at once; 9: not in the gallery
    scores = metrics.evaluate(np.zeros((3, 2)), query, ids, np.array([1, 1, 1]), cams)
    np.testing.assert_array_equal(scores.valid, [1])
    assert (scores.mean_ap, scores.mean_inp, scores.rank(1)) == (1, 1, 1)
    with pytest.raises(ValueError, match="no query has a match"):
        metrics.evaluate(np.zeros((1, 2)), query[:1], ids, np.array([1]), cams)


def test_chunks_do_not_change_the_result():
    g = np.random.default_rng(0)
    labels = [g.integers(0, 6, 37), g.integers(0, 6, 90), g.integers(0, 3, 37), g.integers(0, 3, 90)]
    distance = g.random((37, 90)).round(1)  # with many equal distances
    whole = metrics.evaluate(distance, *labels, chunk=1000)
    parts = metrics.evaluate(distance, *labels, chunk=5)
    for name in ("ap", "inp", "cmc", "valid"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))


def test_distances_by_hand():
    x, y = np.array([[3.0, 4.0]]), np.array([[3.0, 4.0], [0.0, 0.0], [-4.0, 3.0]])
    np.testing.assert_allclose(metrics.distances(x, y, "euclidean"), [[1e-6, 5, np.sqrt(50)]])
    np.testing.assert_allclose(metrics.distances(x, y, "cosine"), [[0, 1, 1]], atol=1e-15)


def test_nearest_keeps_column_order_where_equal():
    np.testing.assert_array_equal(metrics.nearest(np.array([[2.0, 1, 1, 0, 3]]), 3), [[3, 1, 2]])


def test_reranking_in_chunks(monkeypatch):
    g = np.random.default_rng(1)
    query, gallery = g.standard_normal((9, 4)), g.standard_normal((40, 4))
    whole = rerank.rerank(query, gallery, k1=6, k2=3)
    monkeypatch.setattr(rerank, "_CHUNK", 7)
    np.testing.assert_allclose(rerank.rerank(query, gallery, k1=6, k2=3), whole, atol=1e-6)


def test_reranking_of_two_far_clusters_by_hand():
    """Four copies of each point: encodings are 1/4 on the own cluster, so Jaccard distances are 0 and 1."""
    cluster = np.repeat([[0.0, 0.0], [9.0, 0.0]], 4, axis=0)
    result = rerank.rerank(cluster[:1], cluster[1:], "euclidean", k1=3, k2=2, weight=0.3)
    np.testing.assert_allclose(result, [[0, 0, 0, 1, 1, 1, 1]], atol=1e-7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: metrics.distances(np.ones((2, 3)), np.ones((2, 3)), "manhattan"),
            "'manhattan'; expected one of",
        ),
        (lambda: metrics.distances(np.ones((2, 3)), np.ones((2, 4))), r"got \(2, 3\) and \(2, 4\)"),
        (lambda: metrics.distances(np.full((2, 3), np.nan), np.ones((2, 3))), "must be finite"),
        (lambda: metrics.evaluate(np.ones((2, 3)), *map(np.arange, (2, 4, 2, 4))), "2 queries and 4 gallery"),
        (lambda: nearest.expand(np.ones((2, 3)), 3), "1 to 2 neighbours"),
        (lambda: rerank.rerank(np.ones((2, 3)), np.ones((18, 3))), r"more than 20 images .* got 20"),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
