"""Metrics against the reference numbers and against values worked out by hand."""

import itertools
import json

import numpy as np
import pytest

from cion_jax.reid import distances, metrics, nearest, on_device, rerank
from cion_jax.reid.distances import Between, Given

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


def score(distance, *labels, **kwargs):
    return metrics.evaluate(Given(np.asarray(distance)), metrics.Pairing(*map(np.asarray, labels)), **kwargs)


@pytest.mark.parametrize("case", BY_HAND)
def test_by_hand(case):
    ids, cams, ap, inp, first = BY_HAND[case]
    scores = score([[0.1, 0.2, 0.3, 0.4]], [7], ids, [1], cams, ranks=4)
    assert scores.mean_ap == pytest.approx(ap)
    assert scores.mean_inp == pytest.approx(inp)
    assert scores.first == [first]
    np.testing.assert_array_equal(scores.cmc, np.arange(1, 5) >= first)


def test_queries_without_match_are_not_counted():
    query = [8, 7, 9]  # 8: only its own camera; 7: found at once; 9: not in the gallery
    scores = score(np.zeros((3, 2)), query, [7, 8], [1, 1, 1], [2, 1])
    np.testing.assert_array_equal(scores.valid, [1])
    assert (scores.mean_ap, scores.mean_inp, scores.rank(1)) == (1, 1, 1)
    with pytest.raises(ValueError, match="no query has a match"):
        score(np.zeros((1, 2)), query[:1], [7, 8], [1], [2, 1])


def sorted_scores(distance, query_ids, gallery_ids, query_cams, gallery_cams):
    """What the definition says, by sorting whole rows: (AP, INP, rank of the first match) of every counted query."""
    for row, name, cam in zip(distance, query_ids, query_cams, strict=True):
        order = np.argsort(row, kind="stable")
        kept = order[(gallery_ids[order] != name) | (gallery_cams[order] != cam)]
        rank = np.flatnonzero(gallery_ids[kept] == name) + 1
        if len(rank):
            yield np.mean(np.arange(1, len(rank) + 1) / rank), len(rank) / rank[-1], rank[0]


@pytest.mark.parametrize("decimals", [1, 2, 6])
def test_counting_ranks_equals_sorting_with_many_equal_distances(decimals, monkeypatch):
    g = np.random.default_rng(decimals)
    labels = [g.integers(0, 6, 37), g.integers(0, 6, 90), g.integers(0, 3, 37), g.integers(0, 3, 90)]
    distance = g.random((37, 90)).round(decimals)
    monkeypatch.setattr(distances, "_BYTES", 0)  # blocks of 16 queries
    scores = score(distance, *labels)
    ap, inp, first = zip(*sorted_scores(distance, *labels), strict=True)
    np.testing.assert_allclose(scores.ap, ap, rtol=1e-14)
    np.testing.assert_array_equal(scores.inp, inp)
    np.testing.assert_array_equal(scores.first, first)


def test_operating_points_by_hand():
    """300 pairs of different people at 1, 2, .. 300: of those 0, 0 and 3 may be called the same; 4 is not below 4."""
    distance = np.concatenate([[0.5, 2.5, 3.9, 4], np.arange(1, 301)])[None]
    scores = score(distance, [7], np.repeat([7, 0], [4, 300]), [1], np.full(304, 2))
    assert [(o.fpr, o.tpr, o.threshold) for o in scores.operating] == [
        (1e-4, 0.25, 1),
        (1e-3, 0.25, 1),
        (1e-2, 0.75, 4),
    ]
    assert score([[0.1, 0.2]], [7], [7, 7], [1], [2, 3]).operating == ()  # no pair of different people


def test_junk_is_no_pair():
    scores = score([[0.0, 1, 2, 3]], [7], [7, 7, 5, 5], [1], [1, 2, 1, 2])
    assert {(o.tpr, o.threshold) for o in scores.operating} == {(1, 2)}


def test_smallest_of_many_pieces():
    numbers = np.random.default_rng(0).integers(0, 50, (200, 7)).astype(float)
    smallest = metrics.Smallest(100)
    for piece in numbers:
        smallest.add(piece)
    np.testing.assert_array_equal(smallest.sorted(), np.sort(numbers, axis=None)[:100])


def test_all_neighbors_from_tiles(monkeypatch):
    """As sorting whole rows has it, also where distances are equal; integers make that exact."""
    monkeypatch.setattr(nearest, "_TILE", 7)
    x = np.random.default_rng(0).integers(-2, 3, (45, 2)).astype(float)
    between = Between(x, x, "euclidean")
    found, whole = nearest.neighbors(between, 9), between.rows(slice(None))
    order = np.argsort(whole, axis=1, kind="stable")[:, :9]
    np.testing.assert_array_equal(found.index, order)
    np.testing.assert_array_equal(found.distance, np.take_along_axis(whole, order, axis=1))
    np.testing.assert_array_equal(found.farthest, whole.max(axis=1))


def test_distances_by_hand():
    x, y = np.array([[3.0, 4.0]]), np.array([[3.0, 4.0], [0.0, 0.0], [-4.0, 3.0]])
    np.testing.assert_allclose(Between(x, y, "euclidean").rows(slice(None)), [[1e-6, 5, np.sqrt(50)]])
    np.testing.assert_allclose(Between(x, y, "cosine").rows(slice(None)), [[0, 1, 1]], atol=1e-15)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_products_on_a_device_give_the_same_scores(metric):
    g = np.random.default_rng(4)
    query, gallery = (g.standard_normal((n, 8)).astype(np.float32) for n in (30, 200))
    gallery[100:103] = gallery[7]  # equal distances stay equal: they are ranked in gallery order
    labels = [g.integers(0, high, n) for high in (9, 3) for n in (30, 200)]
    host, device = (Between(query, gallery, metric, product) for product in (None, on_device.product))
    np.testing.assert_allclose(device.rows(slice(3, 20)), host.rows(slice(3, 20)), atol=3e-6)
    np.testing.assert_array_equal(device.rows(slice(None))[:, 100], device.rows(slice(None))[:, 7])
    found, expected = (metrics.evaluate(distances, metrics.Pairing(*labels)) for distances in (device, host))
    np.testing.assert_array_equal(found.ap, expected.ap)
    assert found.mean_ap < 0.9


@pytest.mark.parametrize("kept", [0, 2**30])
def test_reranking_in_tiles(monkeypatch, kept):
    g = np.random.default_rng(1)
    query, gallery = g.standard_normal((9, 4)), g.standard_normal((40, 4))
    whole = rerank.Reranked(query, gallery, k1=6, k2=3).rows(slice(None))
    monkeypatch.setattr(nearest, "_TILE", 7)
    monkeypatch.setattr(rerank, "_KEPT", kept)
    tiled = rerank.Reranked(query, gallery, k1=6, k2=3)
    np.testing.assert_allclose(np.concatenate([tiled.rows(slice(0, 2)), tiled.rows(slice(2, 9))]), whole, atol=1e-6)


def test_reranking_of_two_far_clusters_by_hand():
    """Four copies of each point: encodings are 1/4 on the own cluster, so Jaccard distances are 0 and 1."""
    cluster = np.repeat([[0.0, 0.0], [9.0, 0.0]], 4, axis=0)
    result = rerank.Reranked(cluster[:1], cluster[1:], "euclidean", k1=3, k2=2, weight=0.3)
    np.testing.assert_allclose(result.rows(slice(None)), [[0, 0, 0, 1, 1, 1, 1]], atol=1e-7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: Between(np.ones((2, 3)), np.ones((2, 3)), "manhattan"),
            "'manhattan'; expected one of",
        ),
        (lambda: Between(np.ones((2, 3)), np.ones((2, 4))), r"got \(2, 3\) and \(2, 4\)"),
        (
            lambda: Between(np.ones((2, 3)), np.array([[0, 0, 0], [0, np.nan, 0], [np.inf, 0, 0]])),
            r"must be finite, got NaN or infinity in 2 of 3 rows of the gallery \(first: row 1\)",
        ),
        (lambda: score(np.ones((2, 3)), *map(np.arange, (2, 4, 2, 4))), r"expected distances \(2, 4\).* got \(2, 3\)"),
        (lambda: score(np.ones((2, 3)), *map(np.arange, (2, 3, 2, 4))), "cameras of 2 queries and 3 .* got 2 and 4"),
        (lambda: nearest.expand(np.ones((2, 3)), 3), "1 to 2 neighbors"),
        (lambda: rerank.Reranked(np.ones((2, 3)), np.ones((18, 3))), r"more than 20 images .* got 20"),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
