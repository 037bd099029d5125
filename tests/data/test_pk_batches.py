"""Batches of distinct identities: invariants, and the released samplers' shares."""

import numpy as np
import pytest

from cion_jax.data.groups import PlanError, Position, Units
from cion_jax.data.pk_batches import PkPlan, PkTimeline
from cion_jax.data.records import Index
from tests.tasks import reference

SIZES = [1, 2, 3, 4, 5, 9, 17, 6]
PASSES = 400


def _units(sizes=SIZES) -> Units:
    identity = np.repeat(np.arange(len(sizes)), sizes)
    return Units.of(Index(identity, identity), "identity")


def _owner(sizes=SIZES):
    return np.repeat(np.arange(len(sizes)), sizes)


@pytest.mark.parametrize(("p", "k"), [(2, 4), (3, 2), (8, 4), (4, 1)])
def test_batches_hold_distinct_identities_and_groups_distinct_images(p, k):
    plan = PkPlan(_units(), 1, 2, p, k)
    groups = plan.groups(slice(None))
    owner = _owner()[groups]
    assert np.all(owner == owner[:, :1])
    assert all(len(set(batch)) == p for batch in owner[:, 0].reshape(-1, p).tolist())
    for unit, n in enumerate(SIZES):
        drawn = groups[owner[:, 0] == unit]
        assert len(drawn) <= max(1, n // k)
        if n >= k:
            assert len(np.unique(drawn)) == drawn.size
    left = sum(len(groups[owner[:, 0] == u]) < max(1, n // k) for u, n in enumerate(SIZES))
    assert left < p
    assert all(np.array_equal(plan.group(g), groups[g]) for g in range(len(plan)))
    with pytest.raises(IndexError):
        plan.group(len(plan))


def test_pure_function_of_its_numbers():
    def groups(*numbers):
        return PkPlan(_units([40] * 6), *numbers, 2, 4).groups(slice(None)).tolist()

    assert groups(0, 0) == groups(0, 0)
    assert len({str(groups(*numbers)) for numbers in [(0, 0), (0, 1), (1, 0), (1, 1)]}) == 4


def test_tracklets_take_turns():
    """As in `test_groups`: four tracklets of four images, K = 4; three of them at least are in a group."""
    tracklet = np.repeat(np.arange(12), 4)
    index = Index(tracklet // 4, tracklet)
    for number in range(20):
        groups = PkPlan(Units.of(index, "identity", turns=True), 0, number, 3, 4).groups(slice(None))
        assert sorted(groups.ravel()) == list(range(48))
        assert min(len(set(tracklet[group])) for group in groups) >= 3
    usual = PkPlan(Units.of(index, "identity"), 0, 0, 3, 4).groups(slice(None))
    assert min(len(set(tracklet[group])) for group in usual) < 3


def _statistics(sizes, p, k, passes=PASSES):
    """Per pass and unit how many images are drawn, and how many different ones: [passes, U] both; lengths [passes]."""
    units, owner = _units(sizes), _owner(sizes)
    drawn, different, lengths = [], [], []
    for seed in range(passes):
        records = PkPlan(units, seed, 0, p, k).groups(slice(None)).ravel()
        drawn.append(np.bincount(owner[records], minlength=len(units)))
        different.append(np.bincount(owner[np.unique(records)], minlength=len(units)))
        lengths.append(len(records))
    return np.array(drawn), np.array(different), np.array(lengths)


def _is_the_mean(values, expected, samples, step, sigmas=5.0):
    """Whether means of [passes, ...] and of `samples` other passes agree within their sampling error.

    Values change by `step`: where one is nearly always the greatest, its variance is `step` times what is missing on
    average, although ours may happen never to have changed.
    """
    rare = step * np.maximum(values.max(0) - np.asarray(expected), 0)
    error = np.sqrt(np.maximum(values.var(0), rare) * (1 / len(values) + 1 / samples))
    return np.all(np.abs(values.mean(0) - expected) <= sigmas * error + 1e-9)


@pytest.mark.parity
@pytest.mark.parametrize("name", ["K4", "K2", "K8"])
def test_transreids_sampler_has_these_shares(fixtures, name):
    spec, arrays = reference.load(fixtures, "transreid_sampler")
    of, k = spec["results"][name], int(name[1:])
    sizes = [1 + i % 12 for i in range(spec["identities"])]
    drawn, different, lengths = _statistics(sizes, of["identities_per_batch"], k)
    assert _is_the_mean(drawn, arrays[f"{name}/drawn_mean"], spec["repeats"], k)
    assert _is_the_mean(different, arrays[f"{name}/unique_mean"], spec["repeats"], k)
    assert _is_the_mean(lengths, of["list_length_mean"], spec["repeats"], of["batch"])
    assert lengths.max() == of["list_length_max"]
    assert np.all(drawn.max(0) == arrays[f"{name}/drawn_max"])
    by_size = drawn.reshape(len(drawn), -1, 12).mean(1)
    assert _is_the_mean(by_size, of["by_size_drawn_mean"], spec["repeats"], k / 4)


@pytest.mark.parity
@pytest.mark.parametrize("name", ["K16", "K4"])
def test_a_pass_of_mgns_sampler_has_these_shares(fixtures, name):
    spec, arrays = reference.load(fixtures, "mgn_sampler")
    of, k = spec["results"][name], int(name[1:])
    sizes = [1 + 7 * i % 40 for i in range(spec["identities"])]
    drawn, _, lengths = _statistics(sizes, of["batch"] // k, k)
    assert _is_the_mean(drawn, arrays[f"{name}/drawn_per_pass_mean"], 200, k)
    assert _is_the_mean(lengths / of["batch"], of["batches_per_pass_mean"], 200, 1)


def test_passes_are_epochs():
    units = _units([40] * 5 + [7] * 4)
    timeline = PkTimeline(units, 3, 6, 8, 4)
    plans = [PkPlan(units, 3, number, 2, 4) for number in range(6)]
    assert timeline.steps_per_epoch == tuple(len(plan) // 2 for plan in plans)
    assert len(set(timeline.steps_per_epoch)) > 1
    every = [Position(e, i, 4) for e, steps in enumerate(timeline.steps_per_epoch) for i in range(steps)]
    assert [timeline.at(step) for step in range(timeline.total_steps)] == every
    assert timeline.phases(5) == [range(5, timeline.total_steps)]
    assert timeline.phases(timeline.total_steps) == []
    with pytest.raises(IndexError):
        timeline.at(timeline.total_steps)


def test_passes_run_on_where_epochs_have_a_given_length():
    units = _units([40] * 5)
    timeline = PkTimeline(units, 3, 4, 8, 4, steps_per_epoch=7)
    first = len(PkPlan(units, 3, 0, 2, 4)) // 2
    assert timeline.steps_per_epoch == (7,) * 4
    assert timeline.total_steps == 28
    assert timeline.at(first - 1) == Position(0, first - 1, 4)
    assert timeline.at(first) == Position(1, 0, 4)


@pytest.mark.parametrize(
    ("batch", "k", "message"),
    [
        (30, 4, "30 images cannot be divided by K = 4; choose a multiple of K, e.g. 32"),
        (4, 4, "has one identity, so nothing to tell it from; choose a batch of at least 8 images"),
        (64, 4, "takes 16 distinct identities, the data has 8; choose a batch of at most 32 images"),
    ],
)
def test_settings_that_cannot_be_say_what_can(batch, k, message):
    with pytest.raises(PlanError, match=message):
        PkTimeline(_units(), 0, 1, batch, k)
