"""Small pictures of a dataset's images for people to look at, where the images can be reached.

Reads image files through a dataset's source; writes nothing.
"""

import logging
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from iqray.errors import StudyError
from iqray.inputs.images import DecodedImage, decode_image
from iqray.inputs.sources import ImageSource

logger = logging.getLogger(__name__)

# Twice the size at which a report shows them: sharp on a dense screen, some 10 KB as PNG.
SIDE_PX = 64

# What reading an image needs of its manifest.
COLUMNS = ("image_id", "path", "container", "position", "num_bytes")


def read_thumbnails(
    source: ImageSource, manifest: pa.Table, image_ids: Iterable[int]
) -> dict[int, NDArray[np.uint8]]:
    """Read images and shrink them to `SIDE_PX` on their longer side.

    Args:
        source: of the dataset's images.
        manifest: of the dataset, with `COLUMNS`.
        image_ids: of the images.

    Returns:
        By image_id `(height, width, 3) uint8` RGB. Images that cannot be read are left out; all
        are where the dataset's root cannot be reached.
    """
    wanted = pa.array(sorted(set(image_ids)), pa.int64())
    rows = manifest.filter(pc.is_in(manifest["image_id"], value_set=wanted))
    thumbnails = {}
    try:
        for image_id, data in zip(rows["image_id"].to_pylist(), source.read(rows), strict=True):
            decoded = decode_image(data) if isinstance(data, bytes) else data
            if isinstance(decoded, DecodedImage):
                thumbnails[image_id] = _shrink(decoded.pixels)
    except StudyError as error:
        logger.warning("no pictures: %s", error)
    return thumbnails


def _shrink(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    picture = Image.fromarray(pixels)
    picture.thumbnail((SIDE_PX, SIDE_PX))
    return np.asarray(picture)
