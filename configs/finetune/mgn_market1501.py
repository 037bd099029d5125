"""MGN on Market-1501 (FastReID), as released with CION: ResNet 50, 101 and 152, plain and IBN.

    python -m cion_jax.train --config=configs/finetune/mgn_market1501.py:resnet50_ibn --workdir=W \
        --config.data.path=MARKET --config.init_from=RUN|FILE

384x128 pixels, ImageNet's mean and std; eight circle-softmax and five triplet losses; Adam, 60 epochs, of which ten
train the heads alone.
"""

import ml_collections

from cion_jax.common import typed_config
from cion_jax.tasks.supervised import recipes


def get_config(name: str = "resnet50_ibn") -> ml_collections.ConfigDict:
    """The released settings of a backbone."""
    return typed_config.thaw(recipes.mgn(name))
