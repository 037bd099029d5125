"""A small backbone on two cores in minutes: ResNet18-IBN at 64x32 pixels. `bash launch/demo.sh` runs it.

    python -m cion_jax.train --config=configs/demo.py --workdir=W --config.data.path=OUT

A sixteenth of the published pixels, a twentieth of the batch, hundreds of steps, not hundreds of thousands: enough
to see every part at work, too few for the method to show its strength. Dense convolutions, since XLA is slow in
depthwise ones on a CPU. Results: README.
"""

from cion_jax import typed
from cion_jax.config import Config


def get_config():
    """The published recipe but for size, a teacher that follows within few steps, a short warm-up, K = 4 at once."""
    config = typed.thaw(Config())
    config.model.name = "resnet18_ibn"
    config.model.dtype = "float32"
    config.model.prototypes = 1024
    config.model.hidden = 512
    config.model.bottleneck = 128
    config.data.batch_size = 48
    config.data.curriculum = ((0, 4),)
    config.data.canvas = (64, 32)
    config.data.threads = 2
    for view in (config.views.global_1, config.views.global_2):
        view.height, view.width = 64, 32
    config.views.local.height, config.views.local.width = 32, 16
    config.views.local_views = 2
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_epochs = 1.0
    config.optimizer.freeze_epochs = 0.25
    config.optimizer.teacher_momentum = 0.98
    config.train.epochs = 2
    config.train.log_every = 20
    config.train.checkpoint_every = 100
    config.train.keep = 10
    return config
