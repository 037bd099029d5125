"""MSMT17 without labels: cluster contrast as released with CION, for any backbone of the zoo.

    python -m cion_jax.train --config=configs/cluster/msmt17.py:resnet50_ibn --workdir=W \
        --config.data.path=MSMT17 --config.init_from=RUN|FILE

As `market1501.py`, with DBSCAN's eps at 0.7 and the images of train and val lists.
"""

import ml_collections

from cion_jax.common import typed_config
from cion_jax.tasks.cluster import recipes


def get_config(name: str = "resnet50_ibn") -> ml_collections.ConfigDict:
    """The released settings of a backbone."""
    config = typed_config.thaw(recipes.released(name, "msmt17"))
    config.data.canvas = (384, 192)
    return config
