"""Whisper in torch, for training: the model, greedy decoding, prompts."""
