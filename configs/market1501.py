"""Market-1501's train folder on two cores: what ResNet18-IBN learns in under 40 minutes at 64x32 pixels.

    python -m cion_jax.train --config=configs/market1501.py --workdir=W --config.data.path=OUT

OUT comes from `python -m data_prep --source=market1501` over the train folder (README, "On real data"). A sixteenth of
the published pixels, a twentieth of its batch and a few hundredths of its steps, so: strength of blur in proportion to
the size, a sharper and faster teacher, no small local crops.
"""

from cion_jax import typed
from cion_jax.config import Config


def get_config():
    """As the recipe of `configs/vit_b.py`, but for what is said above."""
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
    config.train.epochs = 5
    config.train.log_every = 20
    config.train.checkpoint_every = 250
    config.train.keep = 10
    return config
