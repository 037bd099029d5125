"""Supervised fine-tuning: BNNeck with a triplet loss (TransReID) and MGN."""
