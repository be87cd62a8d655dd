"""Compression: fewer decoder layers, a factorized token embedding."""
