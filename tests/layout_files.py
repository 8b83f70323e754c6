"""The same encoded images in every layout, written with the libraries that users have."""

import io
import json
import posixpath
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.conftest import make_pixels

Images = Mapping[str, bytes]  # by path `<split>/<category>/.../<name>`


def encode_images(
    categories: tuple[str, ...] = ("ant", "bee"), num_train: int = 3, num_test: int = 2
) -> dict[str, bytes]:
    """JPEG and PNG files in nested folders; base names repeat in other categories."""
    rng = np.random.default_rng(0)
    images = {}
    for split, count in (("train", num_train), ("val", num_test)):
        for category in categories:
            for number in range(count):
                buffer = io.BytesIO()
                kind = ("JPEG", "PNG")[number % 2]
                Image.fromarray(make_pixels(rng, 60 + number, 50)).save(buffer, kind)
                name = f"{number}.{kind.lower()}"
                images[f"{split}/{category}/part{number % 2}/{name}"] = buffer.getvalue()
    return images


def write_folders(root: Path, images: Images) -> None:
    for path, data in images.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)


def write_parquet(root: Path, images: Images, row_group_size: int = 2, **changes: Any) -> None:
    """One file per split as `datasets` writes it: image structs, a ClassLabel, small row groups."""
    names = sorted({path.split("/")[1] for path in images})
    feature = {"_type": "ClassLabel", "names": names}
    features = {"image": {"_type": "Image"}, "label": feature}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    (root / "data").mkdir(parents=True)
    for split in ("train", "val"):
        own = {path: data for path, data in images.items() if path.startswith(f"{split}/")}
        columns = {
            "image": [
                {"bytes": data, "path": path.replace("/", "_")} for path, data in own.items()
            ],
            "label": [names.index(path.split("/")[1]) for path in own],
            "key": list(own),
            **{name: make(own) for name, make in changes.items()},
        }
        table = pa.table(columns).replace_schema_metadata(metadata)
        path = root / "data" / f"{split}-00000.parquet"
        pq.write_table(table, path, row_group_size=row_group_size)


def write_tars(root: Path, images: Images, shard_size: int = 4, kind: str = "cls") -> None:
    """Shards `<split>/<n>.tar` with the category in `.cls`, `.json`, or the member's folder."""
    for split in ("train", "val"):
        own = [path for path in images if path.startswith(f"{split}/")]
        (root / split).mkdir(parents=True)
        for start in range(0, len(own), shard_size):
            target = root / split / f"{start // shard_size:05d}.tar"
            with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
                for path in own[start : start + shard_size]:
                    _add_image(tar, path.split("/", 1)[1], images[path], kind)


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _add_image(tar: tarfile.TarFile, name: str, data: bytes, kind: str) -> None:
    category = name.split("/")[0]
    key = posixpath.splitext(name)[0]
    if kind == "cls":
        add_member(tar, f"{key}.cls", f"{category}\n".encode())
    if kind == "json":
        add_member(tar, f"{key}.json", json.dumps({"species": category}).encode())
    add_member(tar, name, data)


LAYOUTS: dict[str, dict[str, Any]] = {
    "folders": {},
    "parquet": {"train": "data/train-*.parquet", "test": "data/val-*.parquet"},
    "webdataset": {},
}

WRITERS = {"folders": write_folders, "parquet": write_parquet, "webdataset": write_tars}
