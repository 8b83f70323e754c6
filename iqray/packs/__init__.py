"""Decoded images of a node: made once, bounded, verified, read by all trials."""
