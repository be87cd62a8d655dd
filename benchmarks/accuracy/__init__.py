"""Word errors, word timestamps, and agreement with openai-whisper."""
