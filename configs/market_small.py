"""The demo's small backbone on Market-1501's training images: some 40 minutes of a core or two.

    python -m cion_jax.train --config=configs/market_small.py --workdir=W --config.data.path=OUT
    python -m cion_jax.train --config=configs/market_small.py:osnet_x0_25 ...                    # another backbone

Frozen-feature mAP on Market-1501's test: 0.71% untrained, 12.86% and 13.69% (two seeds) after 1,603 steps.
"""

import ml_collections

from cion_jax.common import packaged_configs


def get_config(name: str = "resnet18_ibn") -> ml_collections.ConfigDict:
    """The demo's recipe, for longer, and with colors as they are: the light of six cameras differs less here."""
    config = packaged_configs.load("demo")
    config.model.name = name
    for view in (config.views.global_1, config.views.global_2):
        view.brightness = view.contrast = view.saturation = 0.2
        view.hue = view.blur = 0.0
    config.train.epochs = 7
    config.train.checkpoint_every = 200
    return config
