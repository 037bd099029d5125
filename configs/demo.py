"""The demo: ResNet18-IBN on the synthetic street, small crops, two cores, a few minutes.

    python -m cion_jax.train --config=configs/demo.py --workdir=W --config.data.path=OUT

Dense convolutions, since XLA is slow in depthwise ones on a CPU. `bash launch/demo.sh` runs it and prints the result.
"""

from cion_jax import typed
from cion_jax.config import Config


def get_config():
    """Few steps, so: few prototypes, a short warm-up, a teacher that follows quickly, K = 4 from the start."""
    config = typed.thaw(Config())
    config.model.name = "resnet18_ibn"
    config.model.dtype = "float32"
    config.model.prototypes = 1024
    config.model.hidden = 512
    config.model.bottleneck = 128
    config.data.batch_size = 48
    config.data.curriculum = ((0, 4),)
    config.data.canvas = (128, 64)
    config.data.threads = 2
    for view in (config.views.global_1, config.views.global_2):
        view.height, view.width = 128, 64
    config.views.local.height, config.views.local.width = 64, 32
    config.views.local_views = 2
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_epochs = 1.0
    config.optimizer.freeze_epochs = 0.25
    config.optimizer.teacher_momentum = 0.98
    config.train.epochs = 10
    config.train.log_every = 10
    config.train.checkpoint_every = 100
    config.train.keep = 1
    return config
