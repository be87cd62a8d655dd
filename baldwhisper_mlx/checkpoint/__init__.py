"""Model folders: finding, checking, reading and describing them."""
