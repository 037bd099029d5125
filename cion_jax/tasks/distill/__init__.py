"""Identity-guided self-distillation (CION, arXiv 2409.18569)."""
