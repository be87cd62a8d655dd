"""Labelled speech for training: reading, windows, augmentation, prepared sets, batches."""
