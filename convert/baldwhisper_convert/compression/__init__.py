"""What makes a model smaller: fewer decoder layers, a factorized embedding."""
