"""The table of released settings against the authors' configuration files and models."""

import dataclasses

import jax
import pytest

from cion_jax import models
from cion_jax.common.typed_config import ConfigError
from cion_jax.tasks.supervised import optimizers, recipes
from tests.tasks import reference

RENAMED = {"edgenext_x_small": "edgenext_xsmall"}
FEW = ("resnet18", "swin_tiny", "vit_tiny")


@pytest.mark.parity
@pytest.mark.parametrize("dataset", recipes.DATASETS)
def test_the_table_is_the_released_one(fixtures, dataset):
    table = reference.json_only(fixtures, "recipes")["transreid"]
    assert table.keys() == {RENAMED.get(name, name) for name in recipes.BATCHES}
    for name in recipes.BATCHES:
        row = table[RENAMED.get(name, name)]
        recipe = recipes.transreid(name, dataset)
        ours = (recipe.batch_size, recipe.learning_rate, recipe.warmup_epochs, recipe.epochs)
        assert ours == pytest.approx(tuple(row[dataset][key] for key in ("batch", "lr", "warmup", "epochs"))), name
        assert recipe.drop_path == row["drop_path_max_in_training"]


def _doubled(name):
    """Paths of the backbone's parameters with twice the learning rate, as in PyTorch."""
    groups = recipes.transreid(name).groups(1)
    _, params, _ = models.split(models.abstract(name))
    numbers = jax.tree_util.tree_leaves_with_path(optimizers.assign(params, groups))
    return [optimizers.path_name(path).replace("/", ".") for path, number in numbers if groups[int(number)].rate == 2]


@pytest.mark.parity
@pytest.mark.parametrize(
    "name", [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in recipes.BATCHES]
)
def test_the_same_parameters_have_a_doubled_rate(fixtures, name):
    row = reference.json_only(fixtures, "recipes")["transreid"][RENAMED.get(name, name)]
    doubled = _doubled(name)
    assert len(doubled) == row["number_of_parameters_with_doubled_lr"]
    odd = [path.replace("features_", "features") for path in doubled if not path.endswith("bias")]
    assert sorted(odd) == sorted(row["doubled_lr_though_not_a_bias"])


@pytest.mark.parity
@pytest.mark.parametrize("dataset", recipes.DATASETS)
def test_mgn_is_frozen_as_long_as_in_the_release(fixtures, dataset):
    of = reference.json_only(fixtures, "mgn_schedule")[dataset]
    recipe = recipes.mgn("resnet50_ibn")
    per_epoch = of["images"] // recipe.batch_size
    frozen, rest = recipe.groups(per_epoch)
    assert per_epoch == of["iterations_per_epoch"]
    assert (frozen.frozen_until, rest.frozen_until) == (of["frozen_iterations"], 0)
    assert per_epoch * recipe.epochs == of["iterations"]
    assert (per_epoch * recipe.warmup_epochs, per_epoch * recipe.flat_epochs) == (of["warmup"], of["delay"])


def test_a_backbone_without_a_released_row_gets_the_common_one():
    with models.registry.BACKBONES.with_one_more("new", None):
        assert dataclasses.replace(recipes.transreid("repvit_m1_5"), backbone="new") == recipes.transreid("new")


def test_unknown_names_raise():
    with pytest.raises(ConfigError, match=r"vit_bass.*vit_base"):
        recipes.transreid("vit_bass")
    with pytest.raises(ConfigError, match=r"msmt.*msmt17"):
        recipes.transreid("vit_base", "msmt")
    with pytest.raises(ConfigError, match=r"resnet18.*resnet1"):
        recipes.mgn("resnet18")
