"""A ViT's position embeddings in fine-tuning: as they are, and resampled as in the released code."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cion_jax import models
from cion_jax.common.typed_config import ConfigError
from cion_jax.models import vit
from cion_jax.tasks.supervised import recipes
from cion_jax.tasks.supervised.task import Supervised
from cion_jax.weights import torch_names
from tests import fine_tuning, recipe


@pytest.mark.parity
def test_the_released_code_resamples_them_at_their_own_size(fixtures):
    _, stored = recipe.load(fixtures / "downstream" / "transreid_pos_embed")
    table = jnp.asarray(recipe._value(0, "pos_embed", (1, 129, 16), "embed", 1.0))
    found = vit.resized(table, *vit.GRID, always=True)
    np.testing.assert_allclose(found, stored["effective_256x128"], rtol=0, atol=2e-6)
    assert np.abs(found - table).max() > 0.2
    np.testing.assert_array_equal(vit.resized(table, *vit.GRID), table)


@pytest.mark.slow
@pytest.mark.parity
def test_what_is_served_is_what_is_trained(fixtures):
    spec, stored = recipe.load(fixtures / "downstream" / "transreid_pos_embed")
    of_model, _ = recipe.load(fixtures / "models" / "vit_small")
    _, *trees = models.split(models.abstract("vit_small"))
    params, stats = torch_names.from_torch(recipe.weights(of_model), *trees)
    plain = recipes.transreid("vit_small")
    task = Supervised(
        dataclasses.replace(plain, model=dataclasses.replace(plain.model, classes=5, resampled_positions=True))
    )
    network = task.with_backbone(
        {"params": {"bottleneck": {}}, "stats": {"bottleneck": {}}}, {"params": params, "stats": stats}
    )
    served = task.serve(network)
    x_BHWC = jnp.asarray(recipe.image(of_model["seed"], 256, 128).transpose(0, 2, 3, 1))
    found = jax.jit(lambda p, s, x: models.merge(served.graphdef, p, s)(x))(served.params, served.stats, x_BHWC)
    expected = stored["vit_small_out_256x128_f64"]
    bound = max(1e-5, 10 * spec["vit_small"]["fp32_error_over_std"]) * expected.std()
    np.testing.assert_allclose(found, expected, rtol=0, atol=bound)
    in_training = task.network().backbone
    assert in_training.resampled
    own = in_training._positions(*vit.GRID) - in_training.pos_embed[...]
    assert np.abs(own).max() > 1e-3


def test_other_networks_and_sizes_have_no_such_setting():
    with pytest.raises(ConfigError, match=r"is of a ViT at 256x128 with a BNNeck, got vit_tiny at 32x16 with bnneck"):
        fine_tuning.config("anywhere", model__name="vit_tiny", model__resampled_positions=True)
