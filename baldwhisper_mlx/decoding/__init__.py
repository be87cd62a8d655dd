"""Cached greedy decoding: logit rules, repetition, alignment of tokens with audio."""
