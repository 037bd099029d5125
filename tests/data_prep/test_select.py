import numpy as np

from data_prep.config import Config
from data_prep.pipeline.select import select


def test_bounds_and_counts():
    identity = np.array([-1] * 3 + [0] + [1] * 2 + [2] * 40)
    selected, dropped = select(identity, np.arange(46), Config(max_identity_images=32))
    assert [int(selected[identity == i].sum()) for i in (-1, 0, 1, 2)] == [0, 0, 2, 32]
    assert dropped == {"no identity": 3, "identity too small": 1, "identity full": 8}
    assert selected.sum() + sum(dropped.values()) == len(identity)


def test_the_choice_is_spread_over_tracklets():
    tracklet = np.repeat([0, 1, 2], [50, 2, 4])
    selected, _ = select(np.zeros(56, np.int64), tracklet, Config(max_identity_images=9))
    assert [int(selected[tracklet == t].sum()) for t in range(3)] == [4, 2, 3] or [
        int(selected[tracklet == t].sum()) for t in range(3)
    ] == [3, 2, 4]


def test_the_choice_depends_on_seed_and_identity_alone():
    tracklet = np.zeros(60, np.int64)
    config = Config(max_identity_images=10)
    alone, _ = select(np.zeros(60, np.int64), tracklet, config)
    beside, _ = select(np.repeat([0, 1], 60), np.zeros(120, np.int64), config)
    other, _ = select(np.zeros(60, np.int64), tracklet, Config(max_identity_images=10, seed=1))
    np.testing.assert_array_equal(beside[:60], alone)
    assert (beside[60:] != alone).any()
    assert (other != alone).any()


def test_every_image_gets_its_chance():
    config = [Config(max_identity_images=5, seed=seed) for seed in range(200)]
    drawn = sum(select(np.zeros(20, np.int64), np.zeros(20, np.int64), c)[0].astype(int) for c in config)
    assert drawn.sum() == 1000
    assert drawn.min() > 25  # 50 expected, standard deviation 6
    assert drawn.max() < 75


def test_nothing_to_select():
    selected, dropped = select(np.zeros(0, np.int64), np.zeros(0, np.int64), Config())
    assert len(selected) == sum(dropped.values()) == 0
