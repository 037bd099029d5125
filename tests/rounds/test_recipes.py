"""A recipe that is made to fit what was found."""

import jax
import numpy as np
import pytest

import cion_jax
from cion_jax.data.records import Index
from cion_jax.rounds import recipes
from tests.rounds.test_adapt import NETWORK, RECIPE


@pytest.mark.parametrize(("tracklets", "turns"), [([0, 0, 1, 1], True), ([0, 1, 2, 3], False)])
def test_tracklets_take_turns_where_there_are_any(tmp_path, capsys, tracklets, turns):
    Index(np.array([0, 0, 1, 1]), np.array(tracklets)).save(tmp_path)
    config = recipes.settings(str(RECIPE), {}, tmp_path, cion_jax.load(NETWORK), "", 40)
    assert config.data.turns == turns
    assert ("no two images found are of one tracklet" in capsys.readouterr().err) != turns
    assert (config.data.batch_size, config.data.steps_per_epoch, config.train.epochs) == (4 * jax.device_count(), 2, 20)
