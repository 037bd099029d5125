"""The whole denoising run: per video in Beam, then over all videos."""
