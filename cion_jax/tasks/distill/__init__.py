"""Identity-guided self-distillation (CION, arXiv 2409.18569)."""

from cion_jax.tasks import TASKS

TASKS.register_lazily("distill", "cion_jax.tasks.distill.task:Distill")
