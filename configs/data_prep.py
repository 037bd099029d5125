"""Tracklets to identity shards with the published method.

    python -m data_prep --source=market1501 --input=DIR --embedder=onnx:FILE --output=OUT

The published thresholds belong to the authors' extractor. With another one give its own, as in
`--config.sigma_cst=0.3 --config.sigma_drm=0.1`.
"""

from __future__ import annotations

import ml_collections

from cion_jax.typed import thaw
from data_prep.config import Config


def get_config() -> ml_collections.ConfigDict:
    """Every setting at its default; `data_prep.config.Config` says what they are."""
    return thaw(Config())
