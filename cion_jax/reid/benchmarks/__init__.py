"""Benchmarks by name: which images are queries, which are the gallery, who is on them and which camera took them.

A file of this folder, or an installed package with an entry point of the group `cion_jax.benchmarks`, registers a
`Reader` under a name. A reader lists files and opens none of the images.
"""

from cion_jax.reid.benchmarks.base import REGISTRY, Benchmark, BenchmarkError, Images, Reader, load, tables

__all__ = ["REGISTRY", "Benchmark", "BenchmarkError", "Images", "Reader", "load", "tables"]
