"""What `python -m cion_jax.export` writes: one function per format, and the card beside every file."""
