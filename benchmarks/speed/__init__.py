"""Speed and memory of models, and what limits them."""
