"""Numba's compiler as all kernels of this package use it."""

from collections.abc import Callable
from typing import Any

import numba


def compile_kernel(**options: Any) -> Callable[[Callable], Callable]:
    """Numba's compiler, with its cache on disk where a folder for that can be written.

    numba tries NUMBA_CACHE_DIR, then the source's `__pycache__`, then the user's cache folder, and
    raises when none can be written; then every process compiles for itself. Files are replaced
    whole and named after source and CPU, so that processes and unlike nodes can share a folder.
    """
    # Division by 0 gives infinity or NaN; the check for it would keep loops from SIMD.
    options = {"nogil": True, "error_model": "numpy", **options}

    def compile_function(function: Callable) -> Callable:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:
            return numba.njit(**options)(function)

    return compile_function
