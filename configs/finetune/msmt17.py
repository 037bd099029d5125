"""TransReID's fine-tuning on MSMT17, as released with CION, for any backbone of the zoo.

    python -m cion_jax.train --config=configs/finetune/msmt17.py:vit_base --workdir=W \
        --config.data.path=MSMT17 --config.init_from=RUN|FILE

MSMT17 is the benchmark as unpacked, V1 or V2. Train and val lists are trained on, as published numbers are:
--config.data.protocol=train for the train list alone. Images that are higher than 384 pixels are scaled down to that.
"""

import ml_collections

from cion_jax.common import typed_config
from cion_jax.tasks.supervised import recipes


def get_config(name: str = "resnet50_ibn") -> ml_collections.ConfigDict:
    """The released settings of a backbone."""
    config = typed_config.thaw(recipes.transreid(name, "msmt17"))
    config.data.canvas = (384, 192)
    return config
