"""Every config as a text dump, so that a changed default shows in review."""

import importlib.util
from pathlib import Path

import pytest
from flax import traverse_util

from cion_jax.common import typed_config
from cion_jax.tasks.distill.config import Config
from tests import toy

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.py"))
GOLDEN = Path(__file__).parent / "golden"


def load(path, *arguments):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*arguments)


def dump(config):
    flat = traverse_util.flatten_dict(config.to_dict(), sep=".")
    return "".join(f"{name} = {value!r}\n" for name, value in sorted(flat.items()))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_is_its_golden_dump(path):
    """To accept a change: `python -m tests.test_configs` writes the dumps anew."""
    assert dump(load(path)) == (GOLDEN / f"{path.stem}.txt").read_text()


@pytest.mark.parametrize("path", [p for p in CONFIGS if p.stem != "data_prep"], ids=lambda path: path.stem)
def test_training_configs_freeze(path):
    config = load(path)
    config.data.path = "somewhere"
    assert typed_config.freeze(Config, config).data.path == "somewhere"


def test_vit_b_is_the_published_recipe():
    config = load(next(p for p in CONFIGS if p.stem == "vit_b"))
    assert (config.model.name, config.model.prototypes, config.train.epochs) == ("vit_base", 65536, 100)
    assert config.data.curriculum == ((0, 2), (40, 4), (60, 6), (80, 8))
    assert (config.views.local_views, config.optimizer.learning_rate, config.optimizer.warmup_epochs) == (8, 5e-4, 10)


@pytest.mark.parametrize("name", toy.ZOO)
def test_one_recipe_serves_every_backbone(name):
    recipe, config = (
        load(CONFIGS[0].parent / file, *argument) for file, *argument in (["vit_b.py"], ["pretrain.py", name])
    )
    assert config.model.name == name
    config.model.name = "vit_base"
    assert dump(config) == dump(recipe)
    assert config.data.batch_size % 24 == 0


if __name__ == "__main__":
    for config_path in CONFIGS:
        (GOLDEN / f"{config_path.stem}.txt").write_text(dump(load(config_path)))
