"""A network that already knows people, on images without labels and without tracks: 40 minutes of a core.

    python -m cion_jax.train --config=cluster/adapt --workdir=W --config.data.path=IMAGES --config.init_from=FILE
    python -m cion_jax.train --config=cluster/adapt:osnet_x1_0 ...                    # another backbone

Cluster contrast with the clusters of the denoiser, five epochs of 150 batches, Adam at torchreid's rate for OSNet as in
`configs/adapt.py`, which takes tracklets and is for whoever has them. Public networks were trained on images less
ImageNet's mean; with another one they know fewer people before the first step.
"""

import ml_collections

from cion_jax.common import preprocessing, typed_config
from cion_jax.tasks.cluster import recipes


def get_config(name: str = "osnet_x0_25") -> ml_collections.ConfigDict:
    """64 images, 16 clusters x 4; the last of five epochs at a tenth of the rate."""
    config = typed_config.thaw(recipes.released(name, "market1501"))
    config.data.batch_size, config.data.instances, config.data.iterations = 64, 4, 150
    config.data.threads = 2
    config.image.mean, config.image.std = preprocessing.IMAGENET_MEAN, preprocessing.IMAGENET_STD
    config.labels.method = "shared_neighbors"
    config.optimizer.kind, config.optimizer.learning_rate, config.optimizer.decay_epochs = "adam", 3.5e-4, (4,)
    config.train.epochs, config.train.checkpoint_every = 5, 150
    return config
