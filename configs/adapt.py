"""Post-training of a network that already knows people, on identities found without labels.

    python -m cion_jax.adapt --source=S --input=DIR --checkpoint=osnet_x0_25=FILE.pth --output=OUT

`adapt` is cross entropy and batch-hard triplets on the denoiser's identities, P x K batches, Adam at torchreid's rate
for OSNet. The network starts as the one that is served today (`weights.statistics`) and the classifier with the
identities' means: no warm-up has to repair anything. Tracklets of an identity take turns in a group.
`adapt:distill` is identity-guided self-distillation: a small rate, balanced prototypes (Sinkhorn), two global views.
`data.path`, `init_from`, `model.name`, the images' size and the length are set by every round.
"""

import ml_collections

from cion_jax.common import preprocessing, typed_config
from cion_jax.common.typed_config import ConfigError
from cion_jax.tasks.distill.config import Config as Distill
from cion_jax.tasks.supervised.config import Config as Supervised


def get_config(kind: str = "supervised") -> ml_collections.ConfigDict:
    """The recipe of 64 images, K = 4; a checkpoint every 50 steps, so little is lost when it is stopped."""
    if kind not in _OWN:
        raise ConfigError(f"the recipe adapt is of {' or '.join(_OWN)}, got {kind!r}")
    config = _OWN[kind]()
    config.model.name = "osnet_x0_25"
    config.model.dtype = "float32"
    config.data.batch_size, config.data.threads = 64, 2
    config.train.log_every, config.train.checkpoint_every = 10, 50
    return config


def _supervised() -> ml_collections.ConfigDict:
    config = typed_config.thaw(Supervised())
    config.data.instances, config.data.turns = 4, True
    config.model.classifier = "means"
    config.image.mean, config.image.std = preprocessing.IMAGENET_MEAN, preprocessing.IMAGENET_STD
    config.loss.smoothing = 0.1
    config.optimizer.kind = "adam"
    config.optimizer.learning_rate, config.optimizer.bias_rate = 3.5e-4, 1.0
    config.optimizer.warmup_epochs = 0.0
    config.optimizer.weight_decay = 5e-4
    return config


def _distill() -> ml_collections.ConfigDict:
    config = typed_config.thaw(Distill())
    config.model.prototypes, config.model.hidden, config.model.bottleneck = 1024, 512, 128
    config.data.curriculum = ((0, 4),)
    for view in (config.views.global_1, config.views.global_2):
        view.scale = (0.5, 1.0)
        view.brightness = view.contrast = view.saturation = 0.2
        view.hue = view.gray = view.blur = view.solarize = 0.0
    config.views.local_views = 0
    config.loss.centering = "sinkhorn"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_epochs = 0.1
    config.optimizer.freeze_epochs = 0.0
    config.optimizer.weight_decay = (0.04, 0.04)
    config.optimizer.teacher_momentum = 0.99
    return config


_OWN = {"supervised": _supervised, "distill": _distill}
