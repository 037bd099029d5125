"""A page that shows how well a model finds people, and where it does not: one file that needs no network."""

from cion_jax.reid.report.page import write

__all__ = ["write"]
