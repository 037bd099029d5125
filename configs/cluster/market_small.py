"""A small backbone without labels on two cores: ResNet18-IBN at 64x32 pixels, from random weights or from what
`configs/market_small.py` makes.

    python -m cion_jax.train --config=configs/cluster/market_small.py --workdir=W \
        --config.data.path=MARKET --config.init_from=RUN

The released recipe but for size, length, and mean and std of the images, which are those of pre-training: by the
released ones a network that was pre-trained knows fewer people before its first step. Padding is a sixteenth of the
height, as 10 of 256 pixels are about.
"""

import ml_collections

from cion_jax.common import preprocessing, typed_config
from cion_jax.tasks.cluster import recipes


def get_config(name: str = "resnet18_ibn") -> ml_collections.ConfigDict:
    """The recipe of 128 images, 32 clusters x 4: 80 steps an epoch."""
    config = typed_config.thaw(recipes.released(name, "market1501"))
    config.data.batch_size = 128
    config.data.instances = 4
    config.data.iterations = 80
    config.data.canvas = (128, 64)
    config.data.threads = 2
    config.image.height, config.image.width, config.image.pad = 64, 32, 4
    config.image.mean, config.image.std = preprocessing.IMAGENET_MEAN, preprocessing.IMAGENET_STD
    config.optimizer.learning_rate = 1e-2
    config.optimizer.decay_epochs = (6,)
    config.train.epochs = 8
    config.train.checkpoint_every = 80
    config.train.keep = 10
    return config
