"""Small generated images for tests of training and embeddings."""

import numpy as np

from iqray.packs.packing import Pack, PackedImages, concatenate

COLOURS = ((200, 60, 60), (60, 200, 60), (60, 60, 200))


def make_colour_data(num_per_category: int, seed: int, side_px: int = 37) -> PackedImages:
    """Three categories told apart by their colour under strong noise; images of uneven width."""
    generator = np.random.default_rng(seed)
    packs = []
    for colour in COLOURS:
        images = [
            np.clip(generator.normal(colour, 60, (side_px, side_px + extra, 3)), 0, 255)
            for extra in generator.integers(0, 9, num_per_category)
        ]
        pixels = np.concatenate([image.astype(np.uint8).reshape(-1) for image in images])
        packs.append(Pack(pixels, np.array([image.shape[:2] for image in images])))
    return concatenate(packs)
