"""ViT-B, the published recipe (arXiv 2409.18569).

    python -m cion_jax.train --config=configs/vit_b.py --workdir=W --config.data.path=OUT

100 epochs with K = 2, 4, 6, 8 from epochs 0, 40, 60, 80; AdamW 5e-4 per 256 images; 2 global views of 256x128 and 8
local ones of 128x64; 65536 prototypes; batch 960 as on the authors' eight GPUs. Published result after fine-tuning:
93.1 mAP on Market-1501, 72.6 on MSMT17 (from 3.9 million images of 247 thousand people). Not yet trained here.
"""

import ml_collections

from cion_jax.common import typed_config
from cion_jax.tasks.distill.config import Config


def get_config() -> ml_collections.ConfigDict:
    """The defaults are this recipe."""
    config = typed_config.thaw(Config())
    config.model.name = "vit_base"
    return config
