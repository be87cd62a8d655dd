"""Imported before any test: the runtime first, because only then does MLX get a fast BLAS."""

import baldwhisper_mlx  # noqa: F401
