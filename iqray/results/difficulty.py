"""How difficult categories are, as the user's file has it."""

import io

import pandas as pd

from iqray.errors import StudyError
from iqray.filesystems import describe_uri
from iqray.settings.control import DIFFICULTY_MATCHED
from iqray.storage import Storage

_COLUMNS = ["dataset", "category", "difficulty"]


def read_difficulty(path: str, dataset: str, categories: set[str]) -> dict[str, float]:
    """Difficulty of categories, from a CSV file or URI with columns dataset, category, difficulty.

    Raises:
        StudyError: the file cannot be read, lacks a column, or lacks a category.
    """
    folder, slash, name = path.rpartition("/")
    try:
        content = Storage(folder or slash or ".").read_bytes(name)
        table = pd.read_csv(io.BytesIO(content), dtype={"category": str, "dataset": str})
        frame = table[_COLUMNS].astype({"difficulty": "float64"})
    except (OSError, ValueError, KeyError) as error:
        raise StudyError(
            f"controls.difficulty '{describe_uri(path)}' is no CSV file with columns "
            f"{', '.join(_COLUMNS)} ({error}); repair it or give another one"
        ) from error
    own = frame[frame["dataset"] == dataset].dropna(subset=["difficulty"])
    found = dict(zip(own["category"], own["difficulty"], strict=True))
    missing = sorted(categories - set(found))
    if missing:
        raise StudyError(
            f"controls.difficulty '{describe_uri(path)}' has no difficulty of {len(missing)} "
            f"categories of '{dataset}', such as '{missing[0]}'; add them, or set "
            f"controls.{DIFFICULTY_MATCHED} to 0"
        )
    return {category: found[category] for category in sorted(categories)}
