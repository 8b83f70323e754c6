"""File systems: how those of URIs are opened and named for people, how local files are written."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.fs as pafs

KNOWN_URIS = "s3://bucket/folder, gs://bucket/folder or file:///folder"


def open_filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a URI, and the path of the URI's folder in it.

    Raises:
        OSError: it is of no kind that pyarrow knows, is malformed, or its store does not answer;
            the message is without the URI's credentials.
    """
    try:
        filesystem, base = pafs.FileSystem.from_uri(uri)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).replace(uri, describe_uri(uri))
        raise OSError(reason) from None  # the cause would show the URI as it is
    return filesystem, base.rstrip("/")


def describe_uri(uri: str, path: str = "") -> str:
    """A path below a URI for people: without the URI's credentials and query.

    What is no URI stays as it is.
    """
    scheme, mark, rest = uri.partition("://")
    if not mark:
        return f"{uri}/{path}" if path else uri
    place = rest.partition("?")[0]
    authority = place.partition("/")[0]
    if ":" in authority and "@" in place:  # a secret may have a '/' that should be escaped
        place = place.rpartition("@")[2]
    elif "@" in authority:
        place = place.partition("@")[2]
    base = f"{scheme}://{place}".rstrip("/")
    return f"{base}/{path}" if path else base


def write_local_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a local file whole or not at all, replacing an older one.

    Args:
        path: of the file; its folder is made when missing.
        write: puts the content into an open file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
