"""Values that repeat, against a plain count."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from iqray import identity
from iqray.identity import find_repeats


def make_values(number: int) -> pa.ChunkedArray:
    """Texts of which many repeat, some only across the border of two chunks, and nulls."""
    drawn = np.random.default_rng(number).integers(0, number + 1, number)
    values = [None if value % 7 == 0 else f"value {value}" for value in drawn]
    middle = number // 3
    return pa.chunked_array([values[:middle], values[middle:]], pa.string())


@pytest.mark.parametrize("number", [0, 1, 2, 5, 1000])
def test_repeats_are_those_of_a_plain_count(number: int) -> None:
    values = make_values(number)
    counts = Counter(values.to_pylist())
    expected = [value is not None and counts[value] > 1 for value in values.to_pylist()]
    assert find_repeats(values).tolist() == expected
    assert any(expected) == (number > 2)


def test_values_of_equal_hash_are_compared_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    values = make_values(1000)
    expected = find_repeats(values).tolist()
    assert 0 < sum(expected) < 1000
    monkeypatch.setattr(identity, "_hash_values", lambda values: np.zeros(len(values), np.uint64))
    assert find_repeats(values).tolist() == expected


def test_hashes_do_not_depend_on_how_they_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    values = make_values(1000)
    expected = find_repeats(values).tolist()
    monkeypatch.setattr(identity, "_HASHED_VALUES", 64)
    assert find_repeats(values).tolist() == expected
