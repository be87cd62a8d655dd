"""Word errors, word times and agreement with openai-whisper."""
