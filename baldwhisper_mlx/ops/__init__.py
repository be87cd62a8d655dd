"""What MLX's CPU backend lacks on Linux: a fast BLAS, vectorized functions, use of all cores."""
