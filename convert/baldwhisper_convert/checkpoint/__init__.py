"""One canonical form for every checkpoint: parameters, key maps, vocabulary."""
