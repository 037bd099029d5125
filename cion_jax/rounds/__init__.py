"""Identities -> network -> better identities -> better network: what `python -m cion_jax.adapt` runs.

The one room that uses both halves of the project: data_prep finds identities with the network of the round before, the
trainer learns them, and a measure that needs no labels (`halves`) says whether that helped.
"""
