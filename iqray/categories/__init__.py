"""From scores to statistics of categories and the choice of subsets."""
