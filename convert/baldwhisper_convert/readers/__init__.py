"""Reading checkpoints: Hugging Face, OpenAI, CTranslate2, mlx-community, exported folders."""
