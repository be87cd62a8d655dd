"""Recipes: settings, stages in order, manifests, the search for merging weights."""
