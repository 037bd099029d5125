"""Person re-identification pre-training in JAX: identity groups, distillation, backbones, evaluation."""

__version__ = "0.1.0"
