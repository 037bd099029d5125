"""The recipe of an adaptation that takes seconds."""

from cion_jax.common import packaged_configs


def get_config(kind="supervised"):
    """One step a checkpoint."""
    config = packaged_configs.load("adapt", kind)
    config.data.batch_size = 32
    config.data.canvas = (32, 16)
    if kind == "supervised":
        config.image.pad = 2
    else:
        config.model.prototypes, config.model.hidden, config.model.bottleneck = 32, 64, 16
    config.optimizer.learning_rate = 3e-3
    config.train.checkpoint_every = config.train.log_every = 1
    return config
