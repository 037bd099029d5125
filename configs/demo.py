"""A backbone on two cores in minutes: ResNet18-IBN at 64x32 pixels. `bash launch/demo.sh` runs it.

    python -m cion_jax.train --config=configs/demo.py --workdir=W --config.data.path=OUT

A sixteenth of the published pixels, a twentieth of the batch, hundreds of steps instead of hundreds of thousands, so:
blur in proportion to the size, no tiny local crops, a sharper and faster teacher, a short warm-up, K = 4 at once.
Dense convolutions, since XLA is slow in depthwise ones on a CPU. Results: README.
"""

from cion_jax import typed
from cion_jax.config import Config


def get_config():
    """The published recipe, but for what is said above."""
    config = typed.thaw(Config())
    config.model.name = "resnet18_ibn"
    config.model.dtype = "float32"
    config.model.prototypes = 1024
    config.data.batch_size = 48
    config.data.curriculum = ((0, 4),)
    config.data.canvas = (64, 32)
    config.data.threads = 2
    views = config.views
    for view, (height, width) in ((views.global_1, (64, 32)), (views.global_2, (64, 32)), (views.local, (32, 16))):
        view.height, view.width = height, width
        view.sigma = (0.1, 0.5)
    views.global_1.blur = 0.5
    views.local.scale = (0.3, 0.8)
    views.local_views = 2
    config.loss.teacher_temperature = 0.02
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_epochs = 0.5
    config.optimizer.freeze_epochs = 0.25
    config.optimizer.teacher_momentum = 0.99
    config.train.epochs = 1
    config.train.log_every = 20
    config.train.checkpoint_every = 148
    config.train.keep = 10
    return config
