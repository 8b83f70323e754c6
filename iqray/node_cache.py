"""What the processes of one node share: a folder on its disk, and files copied there once.

Reads files below a URI; writes them below `~/.cache/iqray` (or `IQRAY_CACHE`), which can be deleted
at any time.
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
from filelock import FileLock

from iqray.errors import StudyError
from iqray.identity import compute_sha256, hash_content
from iqray.storage import Storage


def get_cache_folder() -> Path:
    """Folder on this node's disk for what its processes can share."""
    return Path(os.environ.get("IQRAY_CACHE", "~/.cache/iqray")).expanduser()


def copy_to_node(storage: Storage, sha256s: Mapping[str, str], name: str) -> Path:
    """Copy files to this node, once for all its processes, and verify their sums.

    The folder's name carries the sums, so that files of other content lie elsewhere. A file that
    is damaged, or was left half written by a machine that went down, is copied again.

    Args:
        storage: where the files are.
        sha256s: hexadecimal sums by path relative to the storage's root.
        name: of the copy, for people who look into the cache.

    Returns:
        Folder that holds the files under the same relative paths.

    Raises:
        StudyError: a file cannot be read, or has another sum than it should.
    """
    folder = get_cache_folder() / "weights" / f"{name}-{hash_content(dict(sha256s))[:16]}"
    if _list_missing(folder, sha256s):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            # Asked again, as another process may have copied while this one waited.
            for path in _list_missing(folder, sha256s):
                _copy(storage, path, folder / path, sha256s[path])
    return folder


def _list_missing(folder: Path, sha256s: Mapping[str, str]) -> list[str]:
    return [
        path
        for path, sha256 in sha256s.items()
        if not (folder / path).is_file() or compute_sha256(folder / path) != sha256
    ]


def _copy(storage: Storage, path: str, target: Path, sha256: str) -> None:
    """Copy one file, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(descriptor)
    partial = Path(temporary)
    try:
        storage.copy_to_local(path, partial)
        found = compute_sha256(partial)
        if found != sha256:
            raise StudyError(
                f"{storage.describe(path)} has a wrong sha256: expected {sha256}, found {found}; "
                "fill the folder again with jobs/prefetch_weights.py"
            )
        partial.replace(target)
    except (OSError, pa.ArrowInvalid) as error:
        raise StudyError(
            f"{storage.describe(path)} cannot be copied to {target} ({error}); is it there, "
            "may this node read it, and has its disk room?"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
