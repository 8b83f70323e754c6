"""Write a finished table twice: as Parquet for programs, as CSV for people."""

import io

import pandas as pd
import pyarrow as pa

from iqray.storage import Storage


def write_with_csv(
    storage: Storage, path: str, frame: pd.DataFrame, schema: pa.Schema, key: str
) -> None:
    """Write a table and, before it, its CSV file beside it.

    Args:
        storage: the output root.
        path: of the table; ends in .parquet.
        frame: with the columns of the schema.
        schema: of the table.
        key: of what the table was made from.
    """
    text = io.StringIO()
    frame.to_csv(text, index=False)
    storage.write_bytes(path.replace(".parquet", ".csv"), text.getvalue().encode())
    table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
    storage.write_table(path, table.replace_schema_metadata(), key=key)
