"""What MLX lacks: on a CPU a fast BLAS and functions on all cores, and turns for threads."""
