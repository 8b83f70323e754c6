"""From manifests to one score row per image and metric."""
