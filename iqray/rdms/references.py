"""RDMs that a user supplies: of brains, of people's judgements, of other networks.

Reads CSV, npy and HDF5 files; a file holds one subject or several, and several files are several
subjects. All end up over the same named conditions.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial.distance import squareform

from iqray.errors import StudyError

FloatArray = NDArray[np.float64]

SUFFIXES = (".csv", ".npy", ".h5", ".hdf5")

# Relative to the largest value: what rounding in a file may leave between d(a, b) and d(b, a).
_TOLERANCE = 1e-5

_NUM_SHOWN = 3

_MIN_CONDITIONS = 3  # two have one pair, which correlates with nothing


@dataclass(frozen=True)
class ReferenceRdms:
    """RDMs of one or several subjects over the same conditions.

    Attributes:
        names: of the conditions: categories, or paths of images.
        dissimilarities: `(num_subjects, num_pairs)`, condensed, finite.
    """

    names: tuple[str, ...]
    dissimilarities: FloatArray

    @property
    def num_subjects(self) -> int:
        """Subjects, or other repeats of the same measurement."""
        return len(self.dissimilarities)

    def select(self, names: Sequence[str]) -> FloatArray:
        """Dissimilarities `(num_subjects, num_pairs)` of some conditions, in the order given."""
        return select_pairs(self.dissimilarities, self.names, names)


def select_pairs(
    dissimilarities: NDArray, names: Sequence[str], wanted: Sequence[str]
) -> FloatArray:
    """Pairs of some conditions out of condensed RDMs.

    Args:
        dissimilarities: `(..., num_pairs)` over `names`.
        names: of the conditions, unique.
        wanted: some of them, in the order of the result.

    Returns:
        `(..., num_wanted_pairs)` float64.
    """
    places = {name: place for place, name in enumerate(names)}
    chosen = np.array([places[name] for name in wanted])
    first, second = (chosen[index] for index in np.triu_indices(len(chosen), k=1))
    low, high = np.minimum(first, second), np.maximum(first, second)
    # scipy's condensed form: row `low` begins after the longer rows above it.
    pairs = len(names) * low - low * (low + 1) // 2 + high - low - 1
    return np.asarray(dissimilarities[..., pairs], dtype=np.float64)


def read_references(
    files: Sequence[Path], names_file: Path | None = None, descriptor: str | None = None
) -> ReferenceRdms:
    """Read RDMs from files.

    Args:
        files: each one of
            CSV: a square table with the conditions' names in the first row and the first column;
            npy: `(C, C)`, `(subjects, C, C)` or condensed `(subjects, pairs)`, names in
            `names_file`;
            HDF5 as rsatoolbox and iqray write it: `dissimilarities` `(subjects, pairs)` or
            `(subjects, C, C)`, and `pattern_descriptors`.
        names_file: text, a name a line, in the order of the npy files.
        descriptor: of the conditions in HDF5 files that holds their names; if none, the only one
            that is text and differs between all conditions.

    Raises:
        StudyError: a file cannot be read, is no RDM, or is of other conditions than the first.
    """
    names = _read_names(names_file) if names_file is not None else None
    read = [_read_file(file, names, descriptor) for file in files]
    first = read[0]
    for file, other in zip(files[1:], read[1:], strict=True):
        lost = sorted(set(first.names) ^ set(other.names))
        if lost:
            raise StudyError(
                f"'{file}' and '{files[0]}' differ in {show_names(lost)}; all subjects must have "
                "the same conditions: leave out what not all have"
            )
    return ReferenceRdms(first.names, np.concatenate([other.select(first.names) for other in read]))


def _read_file(file: Path, names: Sequence[str] | None, descriptor: str | None) -> ReferenceRdms:
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise StudyError(f"'{file}' is no RDM file; give one of {', '.join(SUFFIXES)}")
    try:
        if suffix == ".csv":
            own, values = _read_csv(file)
        elif suffix == ".npy":
            own, values = _read_npy(file, names)
        else:
            own, values = _read_hdf5(file, descriptor)
        _check_names(file, own)
        dissimilarities = _condense(file, np.asarray(values, dtype=np.float64), len(own))
    except StudyError:
        raise
    except (OSError, TypeError, ValueError) as error:
        raise StudyError(f"'{file}' cannot be read as an RDM ({error})") from error
    _check_finite(file, own, dissimilarities)
    return ReferenceRdms(tuple(own), dissimilarities)


def _read_csv(file: Path) -> tuple[list[str], FloatArray]:
    # As text, so that pandas neither renames what is there twice nor takes 'NA' for a number.
    cells = pd.read_csv(file, header=None, dtype=str, keep_default_na=False).to_numpy()
    rows, columns = cells[1:, 0].tolist(), cells[0, 1:].tolist()
    _check_names(file, rows)
    if sorted(rows) != sorted(columns):
        lost = sorted(set(rows) ^ set(columns)) or columns
        raise StudyError(
            f"'{file}' has rows and columns of other names ({show_names(lost)}); its first row "
            "and its first column must name the same conditions"
        )
    order = [columns.index(name) for name in rows]
    values = np.where(cells[1:, 1:] == "", "nan", cells[1:, 1:]).astype(np.float64)
    return rows, values[:, order]


def _read_npy(file: Path, names: Sequence[str] | None) -> tuple[list[str], FloatArray]:
    if names is None:
        raise StudyError(
            f"'{file}' holds numbers without names; give --names, a text file with a category or "
            "image path a line, in the order of the RDM"
        )
    return list(names), np.load(file, allow_pickle=False)


def _read_hdf5(file: Path, descriptor: str | None) -> tuple[list[str], FloatArray]:
    import h5py

    with h5py.File(file) as content:
        for part in ("dissimilarities", "pattern_descriptors"):
            if part not in content:
                raise StudyError(f"'{file}' has no '{part}'; write it with rsatoolbox's RDMs.save")
        values = content["dissimilarities"][()]
        found = {name: _to_text(each[()]) for name, each in content["pattern_descriptors"].items()}
    texts = {name: text for name, text in found.items() if text is not None}
    if descriptor is None:
        unique = [name for name, text in texts.items() if len(set(text)) == len(text)]
        if len(unique) != 1:
            raise StudyError(
                f"'{file}' has {len(unique)} descriptors that could name its conditions (of "
                f"{', '.join(found)}); choose one with --descriptor"
            )
        [descriptor] = unique
    if descriptor not in texts:
        raise StudyError(
            f"'{file}' has no text descriptor '{descriptor}'; choose from {', '.join(texts)}"
        )
    return texts[descriptor], values


def _to_text(values: Any) -> list[str] | None:
    """Texts of a descriptor; none if it holds numbers."""
    if np.asarray(values).dtype.kind not in "SO":
        return None
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _read_names(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"names file '{file}' cannot be read as UTF-8 ({error})") from error
    return [line for line in lines if line]


def _check_names(file: Path, names: Sequence[str]) -> None:
    if len(names) < _MIN_CONDITIONS:
        raise StudyError(
            f"'{file}' has {len(names)} conditions; an RDM to compare with has at least "
            f"{_MIN_CONDITIONS}"
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise StudyError(f"'{file}' names {show_names(twice)} twice; each condition is there once")


def _condense(file: Path, values: FloatArray, num_names: int) -> FloatArray:
    """`(num_subjects, num_pairs)` of square or condensed RDMs."""
    shape = values.shape
    if values.ndim in (2, 3) and shape[-2:] == (num_names, num_names):
        squares = values.reshape(-1, num_names, num_names)
        return np.stack([_condense_square(file, square) for square in squares])
    num_pairs = num_names * (num_names - 1) // 2
    if values.ndim <= 2 and shape[-1:] == (num_pairs,):
        return values.reshape(-1, num_pairs)
    raise StudyError(
        f"'{file}' is {' x '.join(map(str, shape))} and there are {num_names} names; it must be "
        f"{num_names} x {num_names}, subjects x {num_names} x {num_names}, or subjects x "
        f"{num_pairs} (pairs)"
    )


def _condense_square(file: Path, square: FloatArray) -> FloatArray:
    scale = np.nanmax(np.abs(square), initial=0.0)
    if np.abs(np.diag(square)).max() > _TOLERANCE * scale:
        raise StudyError(
            f"the diagonal of '{file}' is not 0; are these similarities? Give dissimilarities, "
            "such as 1 - r"
        )
    if not np.allclose(square, square.T, rtol=0, atol=_TOLERANCE * scale, equal_nan=True):
        raise StudyError(f"'{file}' is not symmetric; give d(a, b) = d(b, a)")
    return np.asarray(squareform((square + square.T) / 2, checks=False))


def _check_finite(file: Path, names: Sequence[str], dissimilarities: FloatArray) -> None:
    if np.isfinite(dissimilarities).all():
        return
    first, second = np.triu_indices(len(names), k=1)
    pair = int(np.flatnonzero(~np.isfinite(dissimilarities).all(axis=0))[0])
    raise StudyError(
        f"'{file}' has no finite dissimilarity between '{names[first[pair]]}' and "
        f"'{names[second[pair]]}'; leave out conditions that were not measured"
    )


def show_names(names: Sequence[str]) -> str:
    """The first few of some names, for messages."""
    shown = ", ".join(f"'{name}'" for name in names[:_NUM_SHOWN])
    return shown + (f" and {len(names) - _NUM_SHOWN} more" if len(names) > _NUM_SHOWN else "")
