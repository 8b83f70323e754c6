"""Stream image rows through a Ray Data actor pool, one finished Parquet file per shard.

A shard is a few hundred images that are worked on and written together. The worker itself reads
the encoded bytes, so neither bytes nor pixels pass through the object store, and it writes the
shard's file under a name made from the shard's content. A file that exists is finished: after a
kill, only missing files are made again, whatever happened to the process that was making them.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from iqray.errors import StudyError
from iqray.identity import hash_strings

logger = logging.getLogger(__name__)

# Told how many rows have been written since the last call.
Report = Callable[[int], None]


@dataclass(frozen=True)
class Shard:
    """Images that are worked on and written together."""

    index: int
    content: str  # hash of its rows
    rows: pa.Table

    def name_file(self, key: str) -> str:
        """File name of the shard's result; `key` says what is made of the rows."""
        return f"{self.index:05d}-{hash_strings([key, self.content])[:16]}.parquet"


@dataclass(frozen=True)
class PoolSize:
    """Resources of an actor pool; `num_cpus` is per actor and also its number of threads."""

    num_actors: int
    num_cpus: float = 1
    num_gpus: float = 0


def split_into_shards(rows: pa.Table, shard_size: int) -> list[Shard]:
    """Cut a table of images into shards of `shard_size` rows (the last may be smaller).

    The rows' `path` and `sha256` (or `modified_ns`, before bytes are read) make the shard's
    content hash.
    """
    identity = [name for name in ("path", "sha256", "modified_ns") if name in rows.column_names]
    shards = []
    for start in range(0, rows.num_rows, shard_size):
        part = rows.slice(start, shard_size)
        columns = [map(str, part.column(name).to_pylist()) for name in identity]
        content = hash_strings("\t".join(values) for values in zip(*columns, strict=True))
        shards.append(Shard(start // shard_size, content, part.combine_chunks()))
    return shards


def run_shards(
    tasks: Iterable[tuple[Shard, dict[str, Any]]],
    worker: type,
    worker_arguments: dict[str, Any],
    pool: PoolSize,
    name: str,
    report: Report,
) -> None:
    """Send shards through a pool of workers.

    Args:
        tasks: each shard with the instructions that its worker gets.
        worker: a class whose `work(rows, **instructions)` writes the shard's files and returns
            the number of rows it has written.
        worker_arguments: for the worker's constructor.
        pool: how many workers, with what resources.
        name: of the data set and operator in Ray's dashboard.
        report: called with the number of rows of each finished shard.
    """
    import ray

    blocks = [_pack_task(shard, instructions) for shard, instructions in tasks]
    if not blocks:
        return
    operator = type(name, (_ShardOperator,), {"worker": worker})
    finished = ray.data.from_arrow(blocks).map_batches(
        operator,
        fn_constructor_kwargs=worker_arguments,
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=min(pool.num_actors, len(blocks))),
        num_cpus=pool.num_cpus,
        num_gpus=pool.num_gpus,
    )
    finished.set_name(name)
    try:
        for row in finished.iter_rows():
            report(row["num_rows"])
    except ray.exceptions.RayError as error:
        _reraise_mistake(error)
        raise


def _reraise_mistake(error: BaseException) -> None:
    """Raise the StudyError that a worker has raised, if that is what stopped the pool."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, StudyError):
            raise StudyError(str(cause.args[0])) from error
        cause = cause.__cause__


def _pack_task(shard: Shard, instructions: dict[str, Any]) -> pa.Table:
    """One row that carries a whole shard, so that Ray Data can never split or merge shards."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, shard.rows.schema) as writer:
        writer.write_table(shard.rows)
    return pa.table(
        {
            "shard": [sink.getvalue().to_pybytes()],
            "instructions": [[(key, str(value)) for key, value in instructions.items()]],
        },
        schema=pa.schema(
            [("shard", pa.binary()), ("instructions", pa.map_(pa.string(), pa.string()))]
        ),
    )


class _ShardOperator:
    """Unpacks shards for a worker; subclassed so that the dashboard shows a telling name."""

    worker: type

    def __init__(self, **arguments: Any) -> None:
        self._worker = self.worker(**arguments)

    def __call__(self, batch: pa.Table) -> pa.Table:
        counts = [self._worker.work(rows, **given) for rows, given in _unpack_tasks(batch)]
        return pa.table({"num_rows": counts})


def _unpack_tasks(batch: pa.Table) -> Iterator[tuple[pa.Table, dict[str, str]]]:
    for row in batch.to_pylist():
        yield pa.ipc.open_stream(row["shard"]).read_all(), dict(row["instructions"])
