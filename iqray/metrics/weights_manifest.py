"""`weights.json`: which files a weights directory holds, with their sha256 sums.

    {"provenance": "pyiqa's weights",
     "files": {"RN50.safetensors": {"sha256": "...", "metric": "clipiqa"}, ...},
     "pyiqa_metrics": {"topiq_nr": ["pyiqa/torch/hub/pyiqa/cfanet_nr_koniq_res50-9a73138b.pth"]}}

`files` has every file by its path in the directory; `metric` is the first that needs it.
`pyiqa_metrics` has the files of each metric that pyiqa loads for itself.
"""

from pydantic import BaseModel, ConfigDict, ValidationError

from iqray.errors import StudyError
from iqray.storage import Storage, open_root

MANIFEST_NAME = "weights.json"


class ListedFile(BaseModel):
    """One file: the hexadecimal sum of its bytes, and the metric that needs it."""

    model_config = ConfigDict(extra="forbid")

    sha256: str
    metric: str


class WeightsManifest(BaseModel):
    """Content of `weights.json`."""

    model_config = ConfigDict(extra="forbid")

    provenance: str
    files: dict[str, ListedFile]
    pyiqa_metrics: dict[str, list[str]] = {}


def read_weights_manifest(storage: Storage) -> WeightsManifest | None:
    """Read a directory's manifest; none when there is none.

    Raises:
        StudyError: the directory cannot be read, or the manifest is none.
    """
    where = storage.describe(MANIFEST_NAME)
    try:
        if not storage.exists(MANIFEST_NAME):
            return None
        return WeightsManifest.model_validate_json(storage.read_bytes(MANIFEST_NAME))
    except ValidationError as error:
        raise StudyError(
            f"{where} must hold provenance and files with sha256 and metric ({error}); "
            "write it anew or delete it"
        ) from error


def save_weights_manifest(storage: Storage, manifest: WeightsManifest) -> None:
    """Write a directory's manifest, whole or not at all."""
    content = manifest.model_dump_json(indent=2, exclude_defaults=True)
    storage.write_bytes(MANIFEST_NAME, content.encode() + b"\n")


def open_directory(directory: str) -> Storage:
    """Storage of a weights directory, a folder or a URI.

    Raises:
        StudyError: the URI is of a kind that is not known, or cannot be reached.
    """
    return open_root(directory, "weights directory", MANIFEST_NAME)


def find_listed_file(storage: Storage, manifest: WeightsManifest, name: str) -> ListedFile:
    """What the manifest says of a file.

    Raises:
        StudyError: nothing.
    """
    if name not in manifest.files:
        raise StudyError(
            f"{storage.describe(MANIFEST_NAME)} does not list {name}; list it with its sha256, or "
            f"delete {MANIFEST_NAME}"
        )
    return manifest.files[name]


def check_listed_sum(storage: Storage, name: str, listed: ListedFile, found: str) -> None:
    """Hold a file's sum against the manifest's.

    Raises:
        StudyError: it is another.
    """
    if listed.sha256.lower() != found:
        raise StudyError(
            f"{storage.describe(name)} has a wrong sha256: expected {listed.sha256}, found "
            f"{found}; fetch the file again, or write {MANIFEST_NAME} anew if it was replaced on "
            "purpose"
        )
