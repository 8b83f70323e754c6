"""Image files of random pixels, and the rows that a manifest has of them."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from iqray.inputs.images import ImageHeader, read_header
from iqray.schemas import MANIFEST


def write_images(folder: Path, sizes: Sequence[tuple[int, int]], seed: int = 0) -> list[Path]:
    """PNG files of random pixels; sizes are (width, height)."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    files = []
    for number, (width, height) in enumerate(sizes):
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        files.append(folder / f"{number}.png")
        Image.fromarray(pixels).save(files[-1])
    return files


def describe_files(files: Mapping[str, Sequence[Path]]) -> pa.Table:
    """Rows of files by category, below the root folder `/`; a file may be absent."""
    rows = []
    for category, own in files.items():
        for file in own:
            row = {"path": file.as_posix()[1:], "category": category}
            row |= {"container": "", "position": 0}
            if file.exists():
                header = read_header(file.read_bytes())
                assert isinstance(header, ImageHeader)
                row |= {"width": header.width, "height": header.height}
                row |= {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
            rows.append(row)
    return pa.Table.from_pylist(rows, schema=MANIFEST)
