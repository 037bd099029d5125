"""Supervised fine-tuning: BNNeck with a triplet loss (TransReID) and MGN."""

from cion_jax.tasks import TASKS

TASKS.register_lazily("supervised", "cion_jax.tasks.supervised.task:Supervised")
