"""From RGB pixels to scores: pyiqa's no-reference metrics, their facts, weights and networks."""
