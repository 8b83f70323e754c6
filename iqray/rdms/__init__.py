"""Distances between embeddings as matrices, and beside those of brains."""
