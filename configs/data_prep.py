"""Tracklets to identity shards, for any extractor.

    python -m data_prep --source=market1501 --input=DIR --embedder=onnx:FILE --output=OUT

Thresholds are found without labels. The published method with nothing added is `--config.preset=paper`; its thresholds
belong to the authors' feature extractor, with another one give its own, as in `--config.sigma_cst=0.5
--config.sigma_drm=0.09`.
Every option of the default can be set alone: `--config.linkage=published`, `--config.cannot_link=false`, ...
"""

from __future__ import annotations

import ml_collections

from cion_jax.common.typed_config import thaw
from data_prep.config import Config


def get_config() -> ml_collections.ConfigDict:
    """Every setting at its default; `data_prep.config.Config` says what they are."""
    return thaw(Config())
