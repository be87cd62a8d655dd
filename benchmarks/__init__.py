"""Speed and accuracy, measured over the public API; results are in results/."""
