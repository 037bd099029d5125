"""What a training run learns: a folder a task."""
