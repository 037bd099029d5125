"""Backbones, the distillation head, and the way between PyTorch's weight names and ours."""

from cion_jax.models.registry import abstract, create, merge, names, split

__all__ = ["abstract", "create", "merge", "names", "split"]
