"""The released settings of cluster contrast, without labels at all or from a labelled source."""

from __future__ import annotations

from cion_jax.common.typed_config import ConfigError, unknown
from cion_jax.models import registry
from cion_jax.tasks.cluster.config import Config, DbscanConfig, LabelsConfig, ModelConfig

# The distance up to which DBSCAN takes two images for neighbors.
EPS = {"market1501": 0.6, "msmt17": 0.7}


def released(backbone: str, dataset: str = "market1501") -> Config:
    """The recipe of a backbone; of one that is no ResNet its own pooling stays.

    Args:
      backbone: a name of `cion_jax.models`.
      dataset: the target, a name of `EPS`.

    Raises:
      ConfigError: an unknown name.
    """
    for what, name, known in (("backbone", backbone, registry.names()), ("data set", dataset, list(EPS))):
        if name not in known:
            raise ConfigError(unknown(f"{what} {name!r}", name, known))
    model = ModelConfig(backbone, pool="gem" if backbone.startswith("resnet") else "own")
    return Config(model=model, labels=LabelsConfig(dbscan=DbscanConfig(EPS[dataset])))
