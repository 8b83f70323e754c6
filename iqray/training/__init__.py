"""From packed images to a trained network and its tested result: one trial."""
