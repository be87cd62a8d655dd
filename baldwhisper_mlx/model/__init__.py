"""The architecture in MLX: encoder, decoder, key/value caches, factorized embedding."""
