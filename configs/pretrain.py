"""The published recipe (arXiv 2409.18569) for any backbone of the zoo.

    python -m cion_jax.models                                       # lists the names
    python -m cion_jax.train --config=configs/pretrain.py:swin_tiny --workdir=W --config.data.path=OUT

100 epochs with K = 2, 4, 6, 8 from epochs 0, 40, 60, 80; AdamW 5e-4 per 256 images; 2 global views of 256x128 and 8
local ones of 128x64; 65536 prototypes. 960 images a step as on the authors' eight GPUs: a multiple of 24, which every K
divides, on each of up to 40 hosts. Backbones that do not fit into memory: --config.model.remat=True.
"""

import ml_collections

from cion_jax.common import typed_config
from cion_jax.tasks.distill.config import Config


def get_config(name: str = "vit_base") -> ml_collections.ConfigDict:
    """The defaults are this recipe; a name that does not exist is answered with the nearest when the run starts."""
    config = typed_config.thaw(Config())
    config.model.name = name
    return config
