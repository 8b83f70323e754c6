"""From finished trials to cells, distances, ranks and what they say of the paper."""
