"""TransReID's fine-tuning on Market-1501, as released with CION, for any backbone of the zoo.

    python -m cion_jax.train --config=configs/finetune/market1501.py:vit_base --workdir=W \
        --config.data.path=MARKET --config.init_from=RUN|FILE

MARKET is the benchmark as unpacked (its `bounding_box_train` is read), or identity shards. 256x128 pixels, mean and std
0.5; BNNeck, cross entropy and soft-margin triplets; SGD, 120 epochs. Batch and learning rate are those of the backbone.
"""

import ml_collections

from cion_jax.common import typed_config
from cion_jax.tasks.supervised import recipes


def get_config(name: str = "resnet50_ibn") -> ml_collections.ConfigDict:
    """The released settings of a backbone."""
    return typed_config.thaw(recipes.transreid(name, "market1501"))
