"""Changes of an image's pixels: degradations at a strength, or a function of the user's own.

What a change does to an image depends on the image and its path alone: neither on its neighbours
nor on where or when it is changed.
"""

import importlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from iqray.distortions import Pixels, distort
from iqray.errors import StudyError
from iqray.identity import compute_sha256, hash_strings
from iqray.settings.intervention import RESTORE, Variant


def change_pixels(pixels: Pixels, variant: Variant, image_id: int, path: str) -> Pixels:
    """Change an image.

    Args:
        pixels: (height, width, 3) uint8 RGB; left as it is.
        variant: a degradation or restore.
        image_id: seeds the noise, which at every strength is the same but for its height.
        path: of the image, for messages.

    Raises:
        StudyError: the function of a restore fails, or returns something else than such pixels.
    """
    if variant.change != RESTORE:
        assert variant.amount is not None
        generator = np.random.default_rng(image_id)
        return distort(pixels, variant.change, variant.amount, generator)
    assert variant.function is not None
    function = load_function(variant.function)
    try:
        restored = np.asarray(function(pixels.copy()))
    except Exception as error:
        raise StudyError(f"{variant.function} fails on '{path}': {error!r}") from error
    if restored.dtype != np.uint8 or restored.ndim != 3 or restored.shape[2] != 3:
        raise StudyError(
            f"{variant.function} returns {restored.dtype} of shape {restored.shape} for '{path}'; "
            "it must return (height, width, 3) uint8"
        )
    return restored


def encode_png(pixels: Pixels) -> bytes:
    """PNG file of an image, which keeps every pixel as it is."""
    buffer = io.BytesIO()
    # Of Pillow's levels 1 is four times as fast as its 6, with files a tenth larger.
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def load_function(name: str) -> Callable[[Pixels], Pixels]:
    """The function that `module:function` names.

    Raises:
        StudyError: there is no such function.
    """
    module, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a module of the user's own raises whatever it does on import
        raise StudyError(
            f"function '{name}' cannot be imported ({error!r}); give module:function of a module "
            "that all nodes can import, such as one on PYTHONPATH"
        ) from error
    if not callable(function):
        raise StudyError(f"'{name}' is no function; give module:function")
    return function  # type: ignore[no-any-return]


def hash_function(name: str, files: Sequence[str] = ()) -> str:
    """SHA-256 of the file that holds a function, and of others: other versions make other images.

    Args:
        name: module:function.
        files: that it depends on besides; what it imports or reads is not known otherwise.

    Raises:
        StudyError: there is no such function, or no such file.
    """
    load_function(name)
    own = importlib.import_module(name.partition(":")[0]).__file__
    try:
        sums = [compute_sha256(Path(file).expanduser()) for file in files]
    except OSError as error:
        raise StudyError(
            f"'{name}' depends on '{error.filename}', which cannot be read ({error.strerror}); "
            "correct files in interventions"
        ) from error
    source = compute_sha256(Path(own)) if own else ""
    return hash_strings([source, *sums]) if sums else source
