"""The report of a denoising run: one HTML page with pictures."""
