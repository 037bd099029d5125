"""The recipe of an adaptation that takes seconds."""

from cion_jax.common import packaged_configs
from tests import toy


def get_config():
    """A toy network, one step a checkpoint."""
    config = packaged_configs.load("adapt", toy.Toy.__name__.lower())
    config.data.batch_size, config.data.instances = 32, 4
    config.data.canvas = (32, 16)
    config.image.pad = 2
    config.optimizer.learning_rate = 3e-3
    config.train.checkpoint_every = config.train.log_every = 1
    return config
