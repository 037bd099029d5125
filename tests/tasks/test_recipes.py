"""The table of released settings against the authors' configuration files and models."""

import dataclasses

import jax
import pytest

from cion_jax import models
from cion_jax.common.paths import path_name
from cion_jax.common.typed_config import ConfigError
from cion_jax.tasks.supervised import recipes
from cion_jax.tasks.supervised.task import GROUPS, Supervised
from cion_jax.training.optimizer import Optimizer
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
        of = recipe.optimizer
        ours = (recipe.data.batch_size, of.learning_rate, of.warmup_epochs, recipe.train.epochs)
        assert ours == pytest.approx(tuple(row[dataset][key] for key in ("batch", "lr", "warmup", "epochs"))), name
        assert recipe.model.drop_path == row["drop_path_max_in_training"]


def _doubled(name):
    """Paths of the backbone's parameters with twice the learning rate, as in PyTorch."""
    optimizer = Optimizer("sgd", GROUPS["bnneck"])
    _, params, _ = models.split(models.abstract(name))
    paths = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    return [p.replace("/", ".") for p in paths if optimizer.group(p).learning_rate == "learning_rate_bias"]


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
    per_epoch = of["images"] // recipe.data.batch_size
    assert per_epoch == of["iterations_per_epoch"]
    assert per_epoch * recipe.train.epochs == of["iterations"]
    settings = recipe.optimizer
    assert (per_epoch * settings.warmup_epochs, per_epoch * settings.flat_epochs) == (of["warmup"], of["delay"])
    model = dataclasses.replace(recipe.model, classes=5)
    task = Supervised(dataclasses.replace(recipe, model=model))
    trains = task.schedules((per_epoch,) * recipe.train.epochs)["backbone_trains"]
    assert [bool(trains(of["frozen_iterations"] + i)) for i in (-1, 0)] == [False, True]


def test_a_backbone_without_a_released_row_gets_the_common_one():
    with models.registry.BACKBONES.with_one_more("new", None):
        common, new = recipes.transreid("repvit_m1_5"), recipes.transreid("new")
        assert dataclasses.replace(common, model=dataclasses.replace(common.model, name="new")) == new


def test_unknown_names_raise():
    with pytest.raises(ConfigError, match=r"vit_bass.*vit_base"):
        recipes.transreid("vit_bass")
    with pytest.raises(ConfigError, match=r"msmt.*msmt17"):
        recipes.transreid("vit_base", "msmt")
    with pytest.raises(ConfigError, match=r"resnet18.*resnet1"):
        recipes.mgn("resnet18")
