"""A checkpoint as a folder for MLX or for Hugging Face."""
