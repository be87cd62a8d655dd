"""Cost and gain of each choice of compression."""
