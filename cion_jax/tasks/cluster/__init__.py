"""Without labels: cluster contrast on the clusters of an epoch's own features, from scratch or from another domain."""

from cion_jax.tasks import TASKS

TASKS.register_lazily("cluster", "cion_jax.tasks.cluster.task:Cluster")
