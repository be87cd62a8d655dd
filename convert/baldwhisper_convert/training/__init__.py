"""Training: losses, objectives, the loop, checkpoints, logs, evaluation."""
