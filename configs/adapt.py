"""Post-training of a network that already knows people, on identities found without labels.

    python -m cion_jax.adapt --source=S --input=DIR --checkpoint=osnet_x0_25=FILE.pth --output=OUT

Cross entropy and batch-hard triplets on the identities of the denoiser, P x K batches, Adam from a small rate: the
network starts as the one that is served today (`weights.statistics`), so no warm-up has to repair it. `train.epochs`,
`data.path` and `init_from` are set by every round.
"""

import ml_collections

from cion_jax.common import preprocessing, typed_config
from cion_jax.tasks.supervised.config import Config


def get_config(name: str = "osnet_x0_25") -> ml_collections.ConfigDict:
    """The recipe of 64 images; rate and decay are torchreid's for OSNet on labels."""
    config = typed_config.thaw(Config())
    config.model.name = name
    config.model.dtype = "float32"
    config.data.batch_size, config.data.instances = 64, 4
    config.data.threads = 2
    config.image.mean, config.image.std = preprocessing.IMAGENET_MEAN, preprocessing.IMAGENET_STD
    config.loss.smoothing = 0.1
    config.optimizer.kind = "adam"
    config.optimizer.learning_rate, config.optimizer.bias_rate = 3.5e-4, 1.0
    config.optimizer.warmup_epochs = 0.0
    config.optimizer.weight_decay = 5e-4
    config.train.log_every = 10
    config.train.checkpoint_every = 50
    return config
