"""Every config as a text dump, so that a changed default shows in review."""

import importlib.util
from pathlib import Path

import pytest
from flax import traverse_util

from cion_jax import tasks
from cion_jax.common import packaged_configs
from cion_jax.common.typed_config import ConfigError
from tests import toy

FOLDER = Path(__file__).parent.parent / "configs"
CONFIGS = sorted(FOLDER.rglob("*.py"))
GOLDEN = Path(__file__).parent / "golden"


def load(path, *arguments):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*arguments)


def dump(config):
    flat = traverse_util.flatten_dict(config.to_dict(), sep=".")
    return "".join(f"{name} = {value!r}\n" for name, value in sorted(flat.items()))


def name_of(path):
    return path.relative_to(FOLDER).with_suffix("").as_posix()


def golden(path):
    return GOLDEN / f"{name_of(path)}.txt"


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_config_is_its_golden_dump(path):
    """To accept a change: `python -m tests.test_configs` writes the dumps anew."""
    assert dump(load(path)) == golden(path).read_text()


@pytest.mark.parametrize("path", [p for p in CONFIGS if p.stem != "data_prep"], ids=name_of)
def test_training_configs_freeze(path):
    config = load(path)
    config.data.path = "somewhere"
    assert tasks.freeze(config, {}).data.path == "somewhere"


@pytest.mark.parametrize(
    ("name", "setting"),
    [("demo", "steps_per_epoch"), ("adapt", "steps_per_epoch"), ("cluster/market_small", "iterations")],
)
def test_more_steps_than_are_counted_are_refused(name, setting):
    """A million epochs of a thousand steps are as many as there may be."""
    config = packaged_configs.load(name)
    changes = {"data.path": "somewhere", "train.epochs": 10**6}
    assert tasks.freeze(config, changes | {f"data.{setting}": 1000}).train.epochs == 10**6
    with pytest.raises(ConfigError, match=rf"data\.{setting}=1001 .* 1,001,000,000, expected at most 1,000,000,000"):
        tasks.freeze(config, changes | {f"data.{setting}": 1001})


@pytest.mark.parametrize("dataset", ["market1501", "msmt17"])
def test_every_backbone_has_fine_tuning_settings(dataset):
    for name in toy.ZOO:
        config = load(FOLDER / "finetune" / f"{dataset}.py", name)
        config.data.path = "somewhere"
        frozen = tasks.freeze(config, {})
        assert (frozen.model.name, frozen.task) == (name, "supervised")


def test_vit_b_is_the_published_recipe():
    config = load(next(p for p in CONFIGS if p.stem == "vit_b"))
    assert (config.model.name, config.model.prototypes, config.train.epochs) == ("vit_base", 65536, 100)
    assert config.data.curriculum == ((0, 2), (40, 4), (60, 6), (80, 8))
    assert (config.views.local_views, config.optimizer.learning_rate, config.optimizer.warmup_epochs) == (8, 5e-4, 10)


@pytest.mark.parametrize("name", toy.ZOO)
def test_one_recipe_serves_every_backbone(name):
    recipe, config = (load(FOLDER / file, *argument) for file, *argument in (["vit_b.py"], ["pretrain.py", name]))
    assert config.model.name == name
    config.model.name = "vit_base"
    assert dump(config) == dump(recipe)
    assert config.data.batch_size % 24 == 0


if __name__ == "__main__":
    for config_path in CONFIGS:
        golden(config_path).write_text(dump(load(config_path)))
