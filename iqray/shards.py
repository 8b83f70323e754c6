"""Shards: a few hundred images of a table that are worked on and written together.

A shard's result is one Parquet file under a name made from the shard's content. A file that exists
is finished: after a kill, only missing files are made again, whatever happened to the process that
was making them. `iqray.pools` sends shards through Ray.
"""

import re
from dataclasses import dataclass, replace

import pyarrow as pa

from iqray.identity import hash_rows, hash_strings

_FILE_NAME = re.compile(r"(\d{5,})-[0-9a-f]{16}\.parquet")


@dataclass(frozen=True)
class Shard:
    """Neighbouring rows of a table under the output root.

    Attributes:
        table: path of the table.
        index: number of the shard, from 0.
        start: position of its first row in the table.
        num_rows: how many rows it has.
        content: hash of its rows.
    """

    table: str
    index: int
    start: int
    num_rows: int
    content: str

    def name_file(self, key: str) -> str:
        """File name of the shard's result; `key` says what is made of the rows."""
        return f"{self.index:05d}-{hash_strings([key, self.content])[:16]}.parquet"


def parse_index(name: str) -> int | None:
    """Number of the shard that a file holds the result of; none for files that shards do not have.

    Args:
        name: of a file in a folder of results, where a person may have put others.
    """
    match = _FILE_NAME.fullmatch(name)
    return int(match.group(1)) if match else None


def replace_content(shard: Shard, rows: pa.Table) -> Shard:
    """The same images once their rows of the manifest are known.

    Args:
        shard: of a listing.
        rows: of the manifest.
    """
    return replace(shard, content=_hash_images(rows))


def split_into_shards(rows: pa.Table, shard_size: int, table: str, start: int = 0) -> list[Shard]:
    """Cut images into shards of `shard_size` rows; the last may be smaller.

    A shard's content is the hash of its rows' category, path and SHA-256; before the images' bytes
    are known, of all that their listing says: an image that is replaced makes another shard.

    Args:
        rows: of a listing, or of a manifest.
        shard_size: rows of a shard.
        table: path of the table that holds the rows, side by side.
        start: position there of the first of them.
    """
    shards = []
    for index, offset in enumerate(range(0, rows.num_rows, shard_size)):
        part = rows.slice(offset, shard_size)
        shards.append(Shard(table, index, start + offset, part.num_rows, _hash_images(part)))
    return shards


def _hash_images(rows: pa.Table) -> str:
    is_inspected = "sha256" in rows.column_names
    return hash_rows(rows.select(["category", "path", "sha256"]) if is_inspected else rows)
