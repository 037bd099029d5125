"""Market-1501 without labels: cluster contrast as released with CION, for any backbone of the zoo.

    python -m cion_jax.train --config=configs/cluster/market1501.py:resnet50_ibn --workdir=W \
        --config.data.path=MARKET --config.init_from=RUN|FILE

MARKET is the benchmark as unpacked, of which `bounding_box_train` is read, or any folder of images: names say cameras,
and whom they show is only watched. 256x128 pixels; DBSCAN with eps 0.6; SGD, 50 epochs of 200 batches of 32 x 8 images.
"""

import ml_collections

from cion_jax.common import typed_config
from cion_jax.tasks.cluster import recipes


def get_config(name: str = "resnet50_ibn") -> ml_collections.ConfigDict:
    """The released settings of a backbone."""
    return typed_config.thaw(recipes.released(name, "market1501"))
