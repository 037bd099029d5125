"""Benchmarks, metrics and re-ranking of person re-identification."""
