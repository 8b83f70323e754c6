"""Parts of a study: what its keys hold, and rules between them."""
