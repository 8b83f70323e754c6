"""The demo's own material: generated images with planted quality, and weights fitted to such."""
