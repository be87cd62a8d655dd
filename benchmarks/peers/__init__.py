"""Other programs on the same clips and weights."""
