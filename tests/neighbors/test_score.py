import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cion_jax.neighbors.score import adjusted_rand, score, unchanged
from tests.data_prep import naive

ids = st.integers(-1, 4)


def f1(precision, recall):
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@settings(deadline=None)
@given(st.lists(st.tuples(ids, ids), min_size=1, max_size=25))
def test_equals_the_definition(rows):
    labels, truth = np.array(rows).T
    found = score(labels, truth)
    for kind, expected in (("pairwise", naive.pairwise), ("bcubed", naive.bcubed)):
        precision, recall = expected(labels.tolist(), truth.tolist())
        names = [f"{kind}_{name}" for name in ("precision", "recall", "f1")]
        assert [found[n] for n in names] == pytest.approx([precision, recall, f1(precision, recall)])


def test_by_hand():
    # Groups {a, a, b} and {b}: 3 pairs, one right; truth has 2 pairs.
    found = score(np.array([0, 0, 0, 1]), np.array([7, 7, 9, 9]))
    assert found["pairwise_precision"] == pytest.approx(1 / 3)
    assert found["pairwise_recall"] == pytest.approx(1 / 2)
    assert found["pairwise_f1"] == pytest.approx(0.4)
    assert found["bcubed_precision"] == pytest.approx((2 / 3 + 2 / 3 + 1 / 3 + 1) / 4)
    assert found["bcubed_recall"] == pytest.approx((1 + 1 + 1 / 2 + 1 / 2) / 4)


def test_excluded_images_cost_recall_only():
    found = score(np.array([0, 0, -1, -1]), np.array([1, 1, 1, 1]))
    assert found["pairwise_precision"] == found["bcubed_precision"] == 1
    assert found["pairwise_recall"] == pytest.approx(1 / 6)


def test_crops_of_nobody_are_never_the_same_person():
    found = score(np.array([0, 0]), np.array([-1, -1]))
    assert found["pairwise_precision"] == 0
    assert found["pairwise_recall"] == 1


def test_no_known_truth_no_score():
    assert score(np.zeros(0, np.int64), np.zeros(0, np.int64)) == {}


def test_millions_of_pairs_are_counted_not_formed():
    labels = np.repeat(np.arange(2), 1_000_000)
    assert score(labels, labels)["pairwise_f1"] == 1


def test_adjusted_rand_by_hand():
    # Pairs: 2 right of 4 grouped and 4 wanted, 15 in all; 1.07 expected by chance.
    labels, truth = np.array([0, 0, 0, 1, 1, 2]), np.array([5, 5, 7, 7, 7, 9])
    assert adjusted_rand(labels, truth) == pytest.approx((2 - 16 / 15) / (4 - 16 / 15))
    assert adjusted_rand(truth, truth) == 1
    assert adjusted_rand(np.array([0, 0, -1, -1]), np.array([3, 3, 4, 5])) == 1  # whoever is alone is right to be


@pytest.mark.parametrize("seed", range(3))
def test_adjusted_rand_is_scikit_learns(seed):
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    rng = np.random.default_rng(seed)
    labels, truth = rng.integers(0, 6, 80), rng.integers(0, 9, 80)
    assert adjusted_rand(labels, truth) == pytest.approx(metrics.adjusted_rand_score(truth, labels))


def test_what_stays():
    before = np.array([0, 0, 0, 1, 1, -1, -1, 2, 2])
    assert unchanged(before, before) == 1
    assert unchanged(np.where(before >= 0, 7 - before, -1), before) == 1  # other numbers
    # One image goes from 0 to 1, an outlier finds a home, the last cluster falls apart.
    now = np.array([0, 0, 1, 1, 1, 1, -1, -1, -1])
    assert unchanged(now, before) == pytest.approx((2 + 2 + 1) / 9)
    # Both halves of a cluster were in it, but only the larger one is its closest.
    assert unchanged(np.array([0, 0, 0, 1, 1]), np.zeros(5, int)) == pytest.approx(3 / 5)
