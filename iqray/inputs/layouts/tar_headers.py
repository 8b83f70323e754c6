"""Headers of tar files, read several times faster than Python's tarfile does.

Plain members, which are nearly all of an image dataset's, are understood here. Whatever else a
header says (long names, links, sparse files, global headers) or fails to say (damage) is left to
tarfile, member by member, so that names, positions and errors are always tarfile's.
"""

import io
import re
import tarfile
import zlib
from collections.abc import Iterator
from typing import NamedTuple

BLOCK_BYTES = 512

# A header as GNU tar, bsdtar and Python write it (POSIX.1-1988 ustar and GNU's variant): name,
# mode, uid, gid, size, mtime, checksum, type, link, magic, user, group, device, prefix, padding.
# Only octal digits of full width; other spellings of numbers are tarfile's to read.
_HEADER = re.compile(
    rb"(?=([^\0]{0,100})).{100}"
    rb"(?:[0-7]{6}[0-7 ][ \0]){3}([0-7]{11})[ \0][0-7]{11}[ \0]([0-7]{6})[ \0]{2}"
    rb"([0\0x]).{172}"
    rb"(?:[0-7]{6}[0-7 ][ \0]|\0{8}){2}"
    rb"(?=([^\0]{0,155})).{155}.{12}",
    re.DOTALL,
)
_CHECKSUM = slice(148, 156)

# Records of a pax header that change neither name nor size nor kind of the member. The float
# mtime that Python and webdataset write gives every member of their archives such a header.
_HARMLESS_RECORD = re.compile(rb"(\d+) (?:mtime|atime|ctime|uid|gid|uname|gname|comment)=[^\n]*\n")
_MAX_RECORDS_BYTES = 4096


class Member(NamedTuple):
    """A member of a tar file."""

    name: str
    offset: int  # of its data in the file
    num_bytes: int
    is_folder: bool
    is_plain: bool  # a file whose bytes lie at the offset: no link, not sparse


class _Header(NamedTuple):
    name: str
    num_bytes: int
    kind: bytes  # of member, as in the header


class TarHeaders:
    """The members of a tar file, in order.

    Args:
        buffered: the file, at its start. It may be read and sought between two members.

    Attributes:
        offset: of the next header; after the last member, of what should be the archive's end.

    Raises:
        tarfile.TarError: while iterating, where tarfile raises it.
    """

    def __init__(self, buffered: io.BufferedReader) -> None:
        self._buffered = buffered
        self.offset = 0

    def __iter__(self) -> Iterator[Member]:
        with tarfile.open(fileobj=self._buffered, mode="r:") as tar:
            # The first header is tarfile's to read: it refuses a file that is no archive.
            found = tar.next()
            while found is not None:
                self.offset = tar.offset
                is_plain = found.isreg() and not found.issparse()
                yield Member(found.name, found.offset_data, found.size, found.isdir(), is_plain)
                if not tar.pax_headers:  # global ones may change every member that follows
                    yield from self._walk_plain()
                tar.offset = self.offset
                # Away from the offset, where tarfile checks that the data before it is whole.
                self._buffered.seek(0)
                found = tar.next()
            self.offset = tar.offset

    def _walk_plain(self) -> Iterator[Member]:
        """Members up to the first one that is not plain, at which `offset` then is."""
        while True:
            start = self.offset
            header = self._read_header(start)
            if header is not None and header.kind == b"x":
                start = self._skip_records(start, header.num_bytes)
                header = self._read_header(start)
            if header is None or header.kind == b"x":
                return
            start += BLOCK_BYTES
            self.offset = start + _round_up(header.num_bytes)
            yield Member(header.name, start, header.num_bytes, False, True)

    def _read_header(self, offset: int) -> _Header | None:
        self._buffered.seek(offset)
        return _parse_header(self._buffered.read(BLOCK_BYTES))

    def _skip_records(self, offset: int, num_bytes: int) -> int:
        """Offset of the header after a pax header's records; of its own where they matter."""
        if num_bytes > _MAX_RECORDS_BYTES:
            return offset
        records = self._buffered.read(num_bytes)
        if len(records) < num_bytes or not _are_harmless(records):
            return offset
        return offset + BLOCK_BYTES + _round_up(num_bytes)


def _parse_header(block: bytes) -> _Header | None:
    """What a plain header says; none for any other, whose checksum may be wrong as well."""
    match = _HEADER.fullmatch(block)
    if match is None or not block.isascii() or int(match[3], 8) != _sum_header(block):
        return None
    name = match[1].decode("ascii")
    if match[4] == b"\0" and name.endswith("/"):  # a folder of the oldest format
        return None
    if match[5]:
        name = f"{match[5].decode('ascii')}/{name}"
    return _Header(name, int(match[2], 8), match[4])


def _sum_header(block: bytes) -> int:
    """The checksum of an ASCII header: the sum of its bytes, with spaces as the checksum.

    The lower half of Adler-32 is 1 plus that sum modulo 65521, which 512 ASCII bytes never reach.
    """
    return (zlib.adler32(block) & 0xFFFF) - 1 - sum(block[_CHECKSUM]) + 8 * ord(" ")


def _are_harmless(records: bytes) -> bool:
    position = 0
    while position < len(records):
        match = _HARMLESS_RECORD.match(records, position)
        if match is None or match.end() - position != int(match[1]):
            return False
        position = match.end()
    return True


def _round_up(num_bytes: int) -> int:
    return -(-num_bytes // BLOCK_BYTES) * BLOCK_BYTES
