"""Layout `webdataset`: images in tar files, named `<key>.<extension>`, found without their data.

An image's category is the field `category_field` of `<key>.json` where the dataset names one, else
the text of `<key>.cls`, else the first folder of the member's path. The key is the member's path
up to the first dot of its base name, as webdataset takes it.
"""

import functools
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from iqray.dataset import Dataset
from iqray.errors import StudyError
from iqray.identity import find_repeats
from iqray.inputs.image_root import FoundFile, ImageRoot, map_in_threads
from iqray.inputs.images import IMAGE_SUFFIXES
from iqray.inputs.layouts.base import FOUND, SEPARATOR, describe_file
from iqray.inputs.layouts.tar_headers import BLOCK_BYTES, Member, TarHeaders

_COMPRESSED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")

# A tar header and the small text files beside it come in one request to an object store.
_BUFFER_BYTES = 4096

_NUM_OPEN_FILES = 32


def list_split(dataset: Dataset, root: ImageRoot, pattern: str) -> pa.Table:
    """Images of one split, by tar file and position: a table of `FOUND`.

    Only headers (and `.cls` or `.json` members) are read; the data is sought over.

    Raises:
        StudyError: a tar file is compressed or broken, or an image has no category.
    """
    files = find_containers(root, pattern)
    for file in files:
        if not file.path.lower().endswith(".tar"):
            raise StudyError(
                f"'{root.describe(file.path)}' is compressed, so that no image in it can be "
                "found by its position; unpack it to a plain .tar (images are compressed already)"
            )
    tables = map_in_threads(lambda file: _list_tar(dataset, root, file), files)
    return pa.concat_tables([FOUND.empty_table(), *tables])


def find_containers(root: ImageRoot, pattern: str) -> list[FoundFile]:
    """The files that `list_split` opens, or refuses to, sorted by path."""
    return root.find_files(pattern, (".tar", *_COMPRESSED_SUFFIXES))


def identify(dataset: Dataset, images: pa.Table) -> pa.ChunkedArray:
    """The path of every image: its member's name, `<shard>#<name>` where the name repeats."""
    del dataset
    names = images["name"].combine_chunks()
    longer = pc.binary_join_element_wise(images["container"].combine_chunks(), names, SEPARATOR)
    return pa.chunked_array([pc.if_else(pa.array(find_repeats(images["name"])), longer, names)])


class TarReader:
    """Reads members by offset and size."""

    can_read_ahead = True

    def __init__(self, root: ImageRoot) -> None:
        self._root = root
        # Of many shards only some stay open; a file closes when nobody refers to it.
        self._open = functools.lru_cache(_NUM_OPEN_FILES)(root.open_file)

    def read(self, row: dict[str, Any]) -> bytes:
        """Data of the image's member."""
        data = bytes(self._open(row["container"]).read_at(row["num_bytes"], row["position"]))
        if len(data) != row["num_bytes"]:
            raise StudyError(
                f"tar file '{self._root.describe(row['container'])}' has changed since its "
                "images were listed; run the study again, which starts with the manifest"
            )
        return data


@dataclass
class _Shard:
    """What the headers of one tar file say."""

    images: list[tuple[str, int, int]] = field(default_factory=list)  # name, offset, bytes
    cls: dict[str, str] = field(default_factory=dict)  # by key
    fields: dict[str, str] = field(default_factory=dict)  # category from JSON, by key


def _list_tar(dataset: Dataset, root: ImageRoot, file: FoundFile) -> pa.Table:
    where = root.describe(file.path)
    try:
        with root.open_file(file.path) as raw, io.BufferedReader(raw, _BUFFER_BYTES) as buffered:
            shard = _read_headers(buffered, file, where, dataset.category_field)
    except (OSError, tarfile.TarError) as error:
        raise StudyError(
            f"tar file '{where}' cannot be read ({error}); repair it, or remove it"
        ) from error
    categorise = _choose_categories(shard, where, dataset.category_field)
    count = len(shard.images)
    names, offsets, sizes = zip(*shard.images, strict=True) if count else ((), (), ())
    columns = {
        "category": pa.array(map(categorise, names), pa.string()),
        "name": pa.array(names, pa.string()),
        "num_bytes": pa.array(sizes, pa.int64()),
        **describe_file(file, count),
        "position": pa.array(offsets, pa.int64()),
    }
    return pa.table(columns, schema=FOUND)


def _read_headers(
    buffered: io.BufferedReader, file: FoundFile, where: str, category_field: str | None
) -> _Shard:
    shard = _Shard()
    headers = TarHeaders(buffered)
    texts = _TextReader(buffered, where)
    for member in headers:
        if member.offset + member.num_bytes > file.num_bytes:
            raise StudyError(
                f"tar file '{where}' is cut off: '{member.name}' ends after the file does; "
                "copy it again, or remove it"
            )
        _sort_in(shard, texts, member, where, category_field)
    _check_end(buffered, headers.offset, where)
    return shard


def _sort_in(
    shard: _Shard, texts: "_TextReader", member: Member, where: str, category_field: str | None
) -> None:
    name = member.name.lower()
    if member.is_folder or name.startswith(".", name.rfind("/") + 1):
        return
    if name.endswith(IMAGE_SUFFIXES):
        if not member.is_plain:
            raise StudyError(
                f"'{member.name}' in tar file '{where}' is a link or sparse, which cannot be read "
                "by its position; store the image itself"
            )
        _check_text(member.name, where)
        shard.images.append((member.name, member.offset, member.num_bytes))
    elif name.endswith(".cls") and category_field is None:
        shard.cls[_get_key(member.name)] = texts.read(member).strip()
    elif name.endswith(".json") and category_field is not None:
        text = texts.read(member)
        shard.fields[_get_key(member.name)] = _read_field(text, category_field, member.name, where)


def _check_end(buffered: io.BufferedReader, offset: int, where: str) -> None:
    """Check that listing ended where the archive does: tarfile stops at a damaged header too."""
    buffered.seek(offset)
    block = buffered.read(BLOCK_BYTES)
    if block.strip(b"\0"):
        raise StudyError(
            f"tar file '{where}' is broken at byte {offset}: neither a header nor the archive's "
            "end; repair it, or remove it"
        )


def _choose_categories(
    shard: _Shard, where: str, category_field: str | None
) -> Callable[[str], str]:
    """How the names of a shard's images give categories: one way for all of them."""
    labels = shard.fields if category_field is not None else shard.cls
    kind = "json" if category_field is not None else "cls"
    if category_field is None and not labels:
        return functools.partial(_take_first_folder, where=where)

    def look_up(name: str) -> str:
        category = labels.get(_get_key(name), "")
        if not category:
            raise StudyError(
                f"image '{name}' in tar file '{where}' has no category: "
                f"'{_get_key(name)}.{kind}' is missing or empty"
            )
        return category

    return look_up


def _take_first_folder(name: str, where: str) -> str:
    folders = [part for part in name.split("/")[:-1] if part not in {"", "."}]
    if not folders:
        raise StudyError(
            f"image '{name}' in tar file '{where}' has no category: add '{_get_key(name)}.cls', "
            "put the image into a folder named by its category, or name a field of its .json "
            "with category_field"
        )
    return folders[0]


def _get_key(name: str) -> str:
    folder, slash, base = name.rpartition("/")
    return f"{folder}{slash}{base.partition('.')[0]}"


class _TextReader:
    """Reads the small text members of a tar file."""

    def __init__(self, buffered: io.BufferedReader, where: str) -> None:
        self._buffered = buffered
        self._where = where

    def read(self, member: Member) -> str:
        """Text of a member; of the member that it links to."""
        try:
            return self._read_bytes(member).decode()
        except UnicodeDecodeError as error:
            raise StudyError(
                f"'{member.name}' in tar file '{self._where}' is not UTF-8 text"
            ) from error

    def _read_bytes(self, member: Member) -> bytes:
        if member.is_plain:
            self._buffered.seek(member.offset)
            return self._buffered.read(member.num_bytes)
        try:
            content = self._archive.extractfile(self._linked[member.offset])
        except KeyError as error:
            raise StudyError(
                f"'{member.name}' in tar file '{self._where}' links to a member that is not there"
            ) from error
        return content.read() if content is not None else b""

    @functools.cached_property
    def _archive(self) -> tarfile.TarFile:
        self._buffered.seek(0)
        return tarfile.open(fileobj=self._buffered, mode="r:")

    @functools.cached_property
    def _linked(self) -> dict[int, tarfile.TarInfo]:
        """Members as tarfile knows them, which finds what they link to, by their offset."""
        return {member.offset_data: member for member in self._archive.getmembers()}


def _read_field(text: str, name: str, member: str, where: str) -> str:
    try:
        value = json.loads(text)[name]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise StudyError(
            f"'{member}' in tar file '{where}' has no field '{name}'; correct category_field"
        ) from error
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise StudyError(
            f"field '{name}' of '{member}' in tar file '{where}' is {value!r}; a category is a "
            "text or an integer"
        )
    return str(value)


def _check_text(name: str, where: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise StudyError(
            f"member {name!r} of tar file '{where}' is not UTF-8; rename it"
        ) from error
