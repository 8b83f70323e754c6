"""Content keys of rows; values that repeat, against a plain count."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from pandas.util import hash_array

from iqray.identity import find_repeats, hash_rows

ROWS = pa.table({"path": ["a", "bc", "", None, "größe"], "num_bytes": [1, 2, None, 0, 5]})


def make_values(number: int) -> pa.ChunkedArray:
    """Texts of which many repeat, some only across the border of two chunks, and nulls."""
    drawn = np.random.default_rng(number).integers(0, number + 1, number)
    values = [None if value % 7 == 0 else f"value {value}" for value in drawn]
    middle = number // 3
    return pa.chunked_array([values[:middle], values[middle:]], pa.string())


# The last is hashed in several chunks.
@pytest.mark.parametrize("number", [0, 1, 2, 5, 1000, 200_000])
def test_repeats_are_those_of_a_plain_count(number: int) -> None:
    values = make_values(number)
    counts = Counter(values.to_pylist())
    expected = [value is not None and counts[value] > 1 for value in values.to_pylist()]
    assert find_repeats(values).tolist() == expected
    assert any(expected) == (number > 2)


def test_values_of_equal_hash_are_compared_whole() -> None:
    """Two texts of one hash, found among some 2^32."""
    pair = ["jnlidednalcihdom", "oaegoflpbokoeleh"]
    first, second = hash_array(np.array(pair, object))
    assert first == second
    values = pa.chunked_array([[*pair, "again"], ["again", None]], pa.string())
    assert find_repeats(values).tolist() == [False, False, True, True, False]
    once_more = pa.chunked_array([[*pair, pair[1]]], pa.string())
    assert find_repeats(once_more).tolist() == [False, True, True]


def replace(index: int, **values: object) -> pa.Table:
    rows = ROWS.to_pylist()
    rows[index] |= values
    return pa.Table.from_pylist(rows, schema=ROWS.schema)


def test_chunks_and_slices_do_not_count() -> None:
    cut = pa.concat_tables([ROWS.slice(0, 2), ROWS.slice(2, 0), ROWS.slice(2)])
    between = pa.concat_tables([ROWS, ROWS, ROWS]).combine_chunks().slice(5, 5)
    assert hash_rows(ROWS) == hash_rows(cut) == hash_rows(between)
    assert hash_rows(ROWS.slice(1, 3)) == hash_rows(pa.concat_tables([ROWS]).slice(1, 3))


@pytest.mark.parametrize(
    "other",
    [
        replace(0, path="b"),
        replace(0, num_bytes=3),
        replace(2, path=None),
        replace(3, path=""),
        replace(2, num_bytes=0),
        replace(3, num_bytes=None),
        pa.table({"path": ["ab", "c", "", None, "größe"], "num_bytes": ROWS["num_bytes"]}),
        ROWS.take([1, 0, 2, 3, 4]),
        ROWS.slice(0, 4),
        ROWS.rename_columns(["path", "position"]),
        ROWS.select(["num_bytes", "path"]),
    ],
)
def test_values_order_nulls_and_borders_count(other: pa.Table) -> None:
    assert hash_rows(other) != hash_rows(ROWS)


def test_tables_without_rows_differ_by_columns() -> None:
    empty = ROWS.slice(0, 0)
    assert hash_rows(empty) == hash_rows(ROWS.schema.empty_table())
    assert hash_rows(empty) != hash_rows(empty.select(["path"]))
