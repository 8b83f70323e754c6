"""Embeddings at any layer, of any images, by trained and other networks."""
