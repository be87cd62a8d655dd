"""What each choice of compression costs and buys."""
