"""Identity groups and the timeline: hand-made cases, invariants, and the reference sampler's shares."""

import json

import numpy as np
import pytest

from cion_jax.data.groups import EpochPlan, PlanError, Position, Timeline, Units
from cion_jax.data.records import Index

SIZES = [1, 2, 3, 4, 5, 9, 17]


def _index(sizes=SIZES) -> Index:
    identity = np.repeat(np.arange(len(sizes)), sizes)
    return Index(identity, np.arange(len(identity)) // 2)


def _units(sizes=SIZES) -> Units:
    return Units.of(_index(sizes), "identity")


def test_units_by_identity_tracklet_and_instance():
    index = Index(np.array([0, 0, 0, 1, 1]), np.array([7, 2, 7, 2, 5]))
    tracklets = Units.of(index, "tracklet")
    assert Units.of(index, "identity").start.tolist() == [0, 3, 5]
    assert (tracklets.records.tolist(), tracklets.start.tolist()) == ([1, 3, 4, 0, 2], [0, 2, 3, 5])
    assert Units.of(index, "instance").sizes.tolist() == [1] * 5


@pytest.mark.parametrize("k", [1, 2, 4, 8])
def test_group_counts_and_distinctness(k):
    index, plan = _index(), EpochPlan(_units(), 3, 5, k)
    groups = plan.groups(slice(None))
    owner = index.identity[groups]
    assert np.all(owner == owner[:, :1])
    assert len(plan) == len(groups) == sum(max(1, n // k) for n in SIZES)
    for unit, n in enumerate(SIZES):
        drawn = groups[owner[:, 0] == unit].ravel()
        counts = np.bincount(drawn, minlength=len(index.identity))[index.identity == unit]
        expected = n // k * k if n >= k else k
        assert counts.sum() == expected
        assert counts.max() - counts.min() <= 1
        if n >= k:
            assert counts.max() == 1


def test_group_is_the_row_of_groups():
    plan = EpochPlan(_units(), 0, 0, 2)
    all_groups = plan.groups(slice(None))
    assert all(np.array_equal(plan.group(g), all_groups[g]) for g in range(len(plan)))
    assert np.array_equal(plan.groups(np.array([3, 1, 3])), all_groups[[3, 1, 3]])
    with pytest.raises(IndexError):
        plan.group(len(plan))


def test_pure_function_of_seed_epoch_and_k():
    def groups(seed, epoch, k=4):
        return EpochPlan(_units([40] * 5), seed, epoch, k).groups(slice(None)).tolist()

    assert groups(1, 2) == groups(1, 2)
    # Products and sums of seed and epoch would make these pairs coincide.
    variants = [groups(*p) for p in [(1, 2), (2, 1), (0, 3), (3, 0), (0, 0), (0, 1), (1, 0)]]
    assert len({json.dumps(v) for v in variants}) == len(variants)


def test_every_image_has_the_same_chance():
    # 5 images, K = 4: each epoch leaves one out; over 400 epochs each is left out 80 +- 8 times.
    draws = np.concatenate([EpochPlan(_units([5]), 0, e, 4).groups(slice(None)).ravel() for e in range(400)])
    left_out = 400 - np.bincount(draws, minlength=5)
    assert left_out.sum() == 400
    assert np.all(abs(left_out - 80) < 40)


def test_the_repeated_image_rotates_in_small_units():
    draws = np.concatenate([EpochPlan(_units([3]), 0, e, 4).groups(slice(None)).ravel() for e in range(300)])
    repeated = np.bincount(draws, minlength=3) - 300
    assert repeated.sum() == 300
    assert np.all(abs(repeated - 100) < 40)


def test_order_of_groups_is_uniform():
    first = [EpochPlan(_units([2] * 10), 0, e, 2).group(0)[0] // 2 for e in range(1000)]
    assert np.all(abs(np.bincount(first, minlength=10) - 100) < 45)


@pytest.mark.parity
@pytest.mark.parametrize("k", [2, 4, 8])
def test_no_repeats_and_no_cut_identities_unlike_the_reference_sampler(fixtures, k):
    """The released sampler repeats images of large identities and cuts them off; ours does neither."""
    spec = json.loads((fixtures / "sampler.json").read_text())
    reference = spec["results"][f"K{k}"]
    sizes = [1 + i % 40 for i in range(spec["identities"])]
    units = _units(sizes)
    drawn = np.zeros((100, len(units.records)), int)
    for epoch in range(100):
        groups = EpochPlan(units, spec["seed"], epoch, k).groups(slice(None))
        drawn[epoch] = np.bincount(groups.ravel(), minlength=len(units.records))
    identity = np.repeat(np.arange(len(sizes)), sizes)
    by_identity = np.array([drawn[:, identity == i].sum(1) for i in range(40)]).T
    ours = by_identity.mean(0)
    large = np.arange(1, 41) >= k
    assert ours[0] == reference["by_size_drawn_mean"][0] == k
    assert np.all(ours[large] == np.arange(1, 41)[large] // k * k)
    assert np.all(drawn[:, np.array(sizes)[identity] >= k] <= 1)
    assert drawn.sum(0).min() > 0
    assert ours[-1] == 40 > reference["by_size_unique_mean"][-1]


def test_timeline_by_hand():
    # Sizes 2, 4, 6: K = 2 gives 6 groups, K = 4 gives 3 groups; batches of 4 images hold 2 or 1 groups.
    timeline = Timeline(_units([2, 4, 6]), 3, 4, ((0, 2), (2, 4)))
    assert timeline.steps_per_epoch == (3, 3, 3)
    assert timeline.total_steps == 9
    assert [timeline.at(s) for s in (0, 3, 5, 6, 8)] == [
        Position(0, 0, 2),
        Position(1, 0, 2),
        Position(1, 2, 2),
        Position(2, 0, 4),
        Position(2, 2, 4),
    ]
    assert timeline.phases() == [range(0, 6), range(6, 9)]
    assert timeline.phases(4) == [range(4, 6), range(6, 9)]
    assert timeline.phases(6) == [range(6, 9)]
    for step in (-1, 9):
        with pytest.raises(IndexError, match=r"0 \.\. 8"):
            timeline.at(step)


def test_steps_of_an_epoch_depend_on_its_k():
    # Sizes 9, 1 in batches of 4: K = 1 gives 10 groups, 2 batches; K = 2 gives 5, 2; K = 4 gives 3, 3.
    timeline = Timeline(_units([9, 1]), 6, 4, ((0, 1), (2, 2), (4, 4)))
    assert timeline.steps_per_epoch == (2, 2, 2, 2, 3, 3)
    assert len(timeline.phases()) == 3


def test_passes_run_on_where_epochs_have_a_given_length():
    # Sizes 2, 4, 6 in batches of 4: 3 steps of a pass by either K. Epochs of 4 steps; K changes within the third pass.
    timeline = Timeline(_units([2, 4, 6]), 4, 4, ((0, 2), (2, 4)), steps_per_epoch=4)
    assert timeline.steps_per_epoch == (4,) * 4
    assert timeline.phases() == [range(0, 8), range(8, 16)]
    passes = [(0, 2), (0, 2), (0, 2), (1, 2), (1, 2), (1, 2), (2, 2), (2, 2)]
    passes += [(3, 4), (3, 4), (3, 4), (4, 4), (4, 4), (4, 4), (5, 4), (5, 4)]
    places = [0, 1, 2, 0, 1, 2, 0, 1, 0, 1, 2, 0, 1, 2, 0, 1]
    expected = [Position(number, place, k) for (number, k), place in zip(passes, places, strict=True)]
    assert [timeline.at(step) for step in range(16)] == expected


def test_an_epoch_may_be_shorter_than_a_pass():
    timeline = Timeline(_units([20]), 2, 2, ((0, 2),), steps_per_epoch=7)
    assert [timeline.at(step).epoch for step in range(14)] == [0] * 10 + [1] * 4


def test_curriculum_beyond_the_last_epoch_changes_nothing():
    assert Timeline(_units([8]), 2, 2, ((0, 2), (5, 1))).phases() == [range(0, 8)]


@pytest.mark.parametrize(
    ("batch", "curriculum", "sizes", "message"),
    [
        (960 + 8, ((0, 2), (40, 4), (60, 6), (80, 8)), [99], "multiple of 24, e.g. 960"),
        (4, ((0, 2),), [1, 1, 1], r"\(\(0, 1\),\)"),
        (
            16,
            ((0, 2),),
            [4, 6],
            "5 groups of K = 2, a batch of 16 images takes 8; .* at most 10",
        ),
        (4, ((1, 2),), [9], "from 0 on"),
        (4, ((0, 2), (0, 4)), [9], "rising"),
        (4, ((0, 0),), [9], "1 to 4096 images"),
        (8192, ((0, 8192),), [9], "1 to 4096 images"),
    ],
)
def test_settings_that_cannot_work_say_what_would(batch, curriculum, sizes, message):
    with pytest.raises(PlanError, match=message):
        Timeline(_units(sizes), 100, batch, curriculum)


def test_tracklets_take_turns():
    """16 images of four tracklets, K = 4: one of each in every group, or two of one at the seams; 3 of them once."""
    index = Index(np.zeros(16, int), np.repeat([3, 9, 4, 7], 4))
    units = Units.of(index, "identity", turns=True)
    for epoch in range(50):
        groups = EpochPlan(units, 1, epoch, 4).groups(slice(None))
        assert sorted(groups.ravel()) == list(range(16))
        assert min(len(set(index.tracklet[group])) for group in groups) >= 3
    usual = [len(set(index.tracklet[g])) for g in EpochPlan(Units.of(index, "identity"), 1, 0, 4).groups(slice(None))]
    assert min(usual) < 3


@pytest.mark.parametrize("tracklets", [[0, 1, 2, 3], [0, 0, 1, 1]])
def test_tracklets_of_one_image_and_one_of_an_identity_cannot_take_turns(tracklets):
    index = Index(np.array([0, 0, 1, 1]), np.array(tracklets))
    with pytest.raises(PlanError, match=r"config\.data\.turns=True, but no identity .* has several tracklets"):
        Units.of(index, "identity", turns=True)


@pytest.mark.parametrize("kind", ["tracklet", "instance"])
def test_units_of_one_tracklet_have_no_turns(kind):
    index = Index(np.zeros(4, int), np.array([0, 0, 1, 1]))
    with pytest.raises(PlanError, match=rf"config\.data\.turns=True needs identities.* config\.identity={kind}"):
        Units.of(index, kind, turns=True)
