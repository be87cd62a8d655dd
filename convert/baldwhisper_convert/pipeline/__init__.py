"""Running recipes: settings, stages, manifests, and the search for merging weights."""
