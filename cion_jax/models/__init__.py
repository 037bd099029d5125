"""Backbones, the distillation head, and the way between PyTorch's weight names and ours."""

from cion_jax.models.registry import create, merge, names, split

__all__ = ["create", "merge", "names", "split"]
