"""Fetches one weight file from the web or a mirror, whole or not at all, and verifies its sum."""

import http.client
import os
import re
import shutil
import tempfile
import urllib.request
from pathlib import Path

import pyarrow as pa

from iqray.errors import StudyError
from iqray.filesystems import describe_uri
from iqray.identity import compute_sha256
from iqray.metrics.published import check_published_sum, find_published_sum
from iqray.storage import Storage

# The Hugging Face hub's first answer, a redirection, names a large file's sha256 in this header; of
# small files it is another kind of sum, with fewer digits.
_SUM_HEADER = "X-Linked-Etag"
_SHA256 = re.compile(r"[0-9a-f]{64}")

_TIMEOUT_S = 60  # without a byte
_PIECE_BYTES = 2**20

_WAY_OUT = (
    "where this machine has no internet, run jobs/prefetch_weights.py on one that has, copy its "
    "folder here, and give that as --source or as the study's weights.directory"
)


def fetch_file(
    name: str, url: str, source: str | None, target: Path, sha256: str | None = None
) -> None:
    """Fetch a file and hold it against what is published of its sum.

    Args:
        name: of the file.
        url: where it is published.
        source: base URL of a mirror, URI, or folder, looked through at any depth; none for `url`.
        target: where to put it; it appears there when it is whole and verified. A file that is
            there already and has the right sum is kept.
        sha256: published sum, or its first digits; none for what iqray knows of the name.

    Raises:
        StudyError: it cannot be fetched, is cut short, or has a wrong sum.
    """
    published = find_published_sum(name) if sha256 is None else sha256
    if target.is_file() and published and compute_sha256(target).startswith(published):
        return
    address = choose_address(name, url, source)
    shown = describe_uri(address)
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    partial = Path(temporary)
    try:
        os.close(descriptor)
        named = _read_address(address, partial)
        found = compute_sha256(partial)
        check_published_sum(published, found, shown)
        check_published_sum(named, found, shown)
        partial.replace(target)
    except http.client.InvalidURL:
        raise StudyError(
            f"{name} cannot be fetched: '{shown}' is no address, or has a user and password, which "
            "are not supported; give another --source"
        ) from None  # the cause would show them
    except (OSError, http.client.HTTPException, pa.ArrowInvalid) as error:
        reason = str(error) or type(error).__name__
        raise StudyError(f"{name} cannot be fetched from {shown} ({reason}); {_WAY_OUT}") from error
    finally:
        partial.unlink(missing_ok=True)


def choose_address(name: str, url: str, source: str | None) -> str:
    """URL, URI or path of a file at a source.

    Raises:
        StudyError: a folder does not hold the file.
    """
    if source is None:
        return url
    if "://" in source:
        return f"{source.rstrip('/')}/{name}"
    folder = Path(source).expanduser()
    found = next((path for path in sorted(folder.rglob(name)) if path.is_file()), None)
    if found is None:
        raise StudyError(
            f"{name} is not in {folder}; download {url} on a machine with internet and put it there"
        )
    return str(found)


def is_folder(source: str | None) -> bool:
    """Whether a source is a folder of this machine."""
    return source is not None and "://" not in source


class _KeepSum(urllib.request.HTTPRedirectHandler):
    """Follows redirections and keeps the sum that the hub names on the way."""

    sha256 = ""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        named = headers.get(_SUM_HEADER, "").strip('"')
        if _SHA256.fullmatch(named):
            self.sha256 = named
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _read_address(address: str, target: Path) -> str:
    """Copy a file, and give the sum that its server names; the empty string where it names none."""
    if address.startswith(("http://", "https://")):
        return _download(address, target)
    base, _, name = address.rpartition("/")
    Storage(base or "/").copy_to_local(name, target)
    return ""


def _download(url: str, target: Path) -> str:
    request = urllib.request.Request(url, headers={"User-Agent": "iqray"})  # noqa: S310 (http only)
    redirections = _KeepSum()
    opener = urllib.request.build_opener(redirections)
    with opener.open(request, timeout=_TIMEOUT_S) as response, target.open("wb") as file:
        shutil.copyfileobj(response, file, _PIECE_BYTES)
        expected, found = response.headers.get("Content-Length"), file.tell()
    if expected is not None and found != int(expected):
        # urllib takes a connection that closes early for the end of the file.
        raise OSError(f"the server sent {found:,} of {int(expected):,} bytes")
    return redirections.sha256
