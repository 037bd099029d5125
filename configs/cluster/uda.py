"""From a labelled domain to one without labels: cluster contrast as released with CION.

    python -m cion_jax.train --config=configs/finetune/msmt17.py:resnet50_ibn --workdir=SOURCE ...
    python -m cion_jax.train --config=configs/cluster/uda.py:resnet50_ibn --workdir=W \
        --config.data.path=MARKET --config.init_from=SOURCE

As released, the source is where the weights come from and no more: a fine-tuned backbone, pooling and BatchNorm anew.
With `--config.data.source=MSMT17` half of every batch is of the source, and the memory holds its people beside the
clusters (as in SpCL, arXiv 2006.02713). `uda.py:resnet50_ibn,msmt17` has the settings of the other target.
"""

import ml_collections

from cion_jax.common import typed_config
from cion_jax.tasks.cluster import recipes


def get_config(which: str = "resnet50_ibn") -> ml_collections.ConfigDict:
    """The released settings of `BACKBONE` or `BACKBONE,TARGET`."""
    name, _, target = which.partition(",")
    config = typed_config.thaw(recipes.released(name, target or "market1501"))
    if target == "msmt17":
        config.data.canvas = (384, 192)
    return config
