"""Measurements: each file is a program, `python -m benchmarks.NAME`."""
