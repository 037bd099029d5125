"""Person re-identification pre-training in JAX: identity groups, distillation, backbones, evaluation."""
