"""A recipe that is made to fit what was found."""

import jax
import numpy as np
import pytest

import cion_jax
from cion_jax.common import packaged_configs
from cion_jax.data.records import Index
from cion_jax.rounds import recipes
from cion_jax.tasks import freeze
from tests.rounds.test_adapt import NETWORK, RECIPE


@pytest.mark.parametrize(("tracklets", "turns"), [([0, 0, 3, 1, 1], True), ([0, 4, 3, 1, 2], False)])
def test_tracklets_take_turns_where_there_are_any(tmp_path, capsys, tracklets, turns):
    Index(np.array([0, 0, 0, 1, 1]), np.array(tracklets)).save(tmp_path)
    config = recipes.settings(str(RECIPE), {}, tmp_path, cion_jax.load(NETWORK), "", 40)
    assert config.data.turns == turns
    assert ("no identity found has several tracklets" in capsys.readouterr().err) != turns
    assert (config.data.batch_size, config.data.steps_per_epoch, config.train.epochs) == (4 * jax.device_count(), 2, 20)


def test_the_epochs_of_a_distillation_are_counted_in_groups(tmp_path):
    # 24 people of 5 images: at K = 4 a group each, 2 steps of 48 images in an epoch; images alone would make it 2.5.
    Index(np.repeat(np.arange(24), 5), np.repeat(np.arange(24), 5)).save(tmp_path)
    config = recipes.settings("market_small", {}, tmp_path, cion_jax.load("random:resnet18_ibn@64x32"), "", 9)
    assert (config.train.epochs, config.train.steps, config.data.steps_per_epoch) == (5, 9, 2)


def test_schedules_end_with_the_steps():
    """Passes through what groups there are; or as many epochs as an adaptation has, of equal length."""
    people = Index(np.repeat(np.arange(100), 10), np.arange(1000))
    changes = {"data.path": "x", "data.batch_size": 64, "data.curriculum": ((0, 4),)}
    of = {
        identity: freeze(packaged_configs.load("market_small"), changes | {"identity": identity})
        for identity in ("identity", "instance")
    }
    # Ten images are two groups of four, sixteen of which are a batch: 12 steps of 200 groups. Single images: 15 steps.
    assert recipes.length(of["identity"], people, 90) == {"train.epochs": 8, "data.steps_per_epoch": 12}
    assert recipes.length(of["instance"], people, 90) == {"train.epochs": 6, "data.steps_per_epoch": 15}
    assert recipes.length(of["instance"], people, 10) == {"train.epochs": 1, "data.steps_per_epoch": 10}  # not all 15
    adapt = freeze(packaged_configs.load("adapt", "supervised"), {"data.path": "x"})
    assert recipes.length(adapt, people, 90) == {"train.epochs": 20, "data.steps_per_epoch": 5}  # 4.5
