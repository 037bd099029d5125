"""One trainer for every task: state, step, loop, checkpoints, metrics."""
