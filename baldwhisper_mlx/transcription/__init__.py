"""From samples to segments: windows, fallbacks, batches, word times."""
