"""A recipe that is made to fit what was found."""

import jax
import numpy as np
import pytest

import cion_jax
from cion_jax.data.records import Index
from cion_jax.rounds import recipes
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
    assert (config.train.epochs, config.train.steps) == (5, 9)
