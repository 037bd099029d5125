"""The way in for weights: PyTorch files, safetensors, run folders; names and axis order of PyTorch and ours."""
