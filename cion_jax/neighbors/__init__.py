"""Nearest neighbors and the clusterings that stand on them. Imports no JAX."""
