"""Progressive multi-level denoising of identities."""
