"""How fast models are, and what limits them."""
