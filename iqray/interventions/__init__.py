"""Changes of a subset's images, as datasets and studies of their own."""
