"""Send shards through pools of Ray Data actors.

A task is a few words: which rows of which table, and what to do with them. The worker reads the
rows and the images itself and writes the shard's file, so neither bytes nor pixels nor rows pass
through the object store, whose use does not grow with the images.
"""

import json
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import pyarrow as pa

from iqray.errors import StudyError
from iqray.resources import WorkerCount, WorkerRequest
from iqray.shards import Shard
from iqray.storage import Storage

# How often in a row a process may end while it loads, as on a node that is taken away.
_MAX_INIT_DEATHS = 3


@dataclass(frozen=True)
class Written:
    """Rows that a worker has written: of which job, how many, and how many of them are failures.

    `path` is the file's, where whoever counts failures is to read them.
    """

    job: str
    num_rows: int
    num_failed: int
    path: str = ""


# How long an error waits for pools that are in the middle of a shard.
_MAX_STOP_S = 60

# Told what has been written since the last call.
Report = Callable[[Written], None]


@dataclass(frozen=True)
class PoolSize:
    """How many actors a pool has, and the resources of each.

    Attributes:
        min_actors: kept all the time.
        max_actors: grown to where there is work and room.
        initial_actors: started at once; the pool's smallest number if none. Ray Data grows a pool
            only while its actors are busy, so that the second would begin to load when the first
            has finished loading.
        num_cpus: per actor; also its number of threads.
        num_gpus: per actor; a fraction is shared with other actors.
    """

    min_actors: int
    max_actors: int
    num_cpus: float = 1
    num_gpus: float = 0
    initial_actors: int | None = None

    @classmethod
    def of(cls, request: WorkerRequest, count: WorkerCount) -> Self:
        """Size of a pool of the workers that `fit_pools` has found room for."""
        sizes = (count.smallest, count.largest)
        return cls(*sizes, request.num_cpus, request.num_gpus, count.initial)

    @property
    def num_threads(self) -> int:
        """Threads of an actor."""
        return max(1, int(self.num_cpus))

    @property
    def device(self) -> str:
        """Torch's name of what an actor computes on."""
        return "cuda" if self.num_gpus else "cpu"


@dataclass(frozen=True)
class Pool:
    """A pool of actors and the shards for it.

    Attributes:
        name: of the data set and operator in Ray's dashboard.
        size: actors and their resources.
        storage: the output root.
        worker: a class whose `work(rows, **instructions)` writes the shard's files and returns a
            `Written` per job.
        worker_arguments: for the worker's constructor.
        tasks: each shard with the instructions that its worker gets.
    """

    name: str
    size: PoolSize
    storage: Storage
    worker: type
    worker_arguments: dict[str, Any]
    tasks: Sequence[tuple[Shard, dict[str, Any]]] = field(repr=False)


def run_pools(pools: Sequence[Pool], report: Report) -> None:
    """Run pools at the same time, each as a Ray Data execution of its own, until all are done.

    Args:
        pools: what to run; those without tasks are passed over.
        report: called with what each finished shard has written, by one thread at a time. What it
            raises stops all pools.

    Raises:
        StudyError: a worker has found a mistake of the user's.
    """
    busy = [pool for pool in pools if pool.tasks]
    if not busy:
        return
    collector = _Collector(report)
    threads = [
        threading.Thread(target=collector.drain, args=(pool,), name=pool.name, daemon=True)
        for pool in busy[1:]
    ]
    for thread in threads:
        thread.start()
    collector.drain(busy[0])  # here, where an interrupt arrives
    for thread in threads:
        # After an error the others stop with their next shard.
        thread.join(_MAX_STOP_S if collector.has_failed else None)
    collector.reraise()


class _Collector:
    """Takes what pools have written; the first error stops every pool."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._lock = threading.Lock()
        self._error: BaseException | None = None

    @property
    def has_failed(self) -> bool:
        """Whether any pool has."""
        return self._error is not None

    def drain(self, pool: Pool) -> None:
        """Run a pool to its end, or until one has failed."""
        try:
            for written in _stream(pool):
                with self._lock:
                    if self._error is not None:
                        return
                    self._report(written)
        except BaseException as error:  # of any thread; the caller's thread raises it
            self.stop(error)

    def stop(self, error: BaseException) -> None:
        """Keep the first error."""
        with self._lock:
            self._error = self._error or error

    def reraise(self) -> None:
        """Raise the first error of any pool."""
        if self._error is not None:
            raise self._error


def _stream(pool: Pool) -> Iterator[Written]:
    """Execute a pool; yields what its workers have written as they go."""
    import ray

    _quieten_data()
    operator = type(pool.name, (_ShardOperator,), {"worker": pool.worker})
    items = [_pack_task(shard, instructions) for shard, instructions in pool.tasks]
    # A block for each, so that Ray Data can never split or merge shards. `from_arrow` would ask
    # workers for the blocks' sizes, and its tasks keep the processes that Ray has ready: the pool's
    # actors would wait for new ones.
    finished = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        operator,
        fn_constructor_kwargs={"storage": pool.storage, "arguments": pool.worker_arguments},
        batch_size=1,
        batch_format="pyarrow",
        compute=_choose_strategy(pool.size, len(items)),
        num_cpus=pool.size.num_cpus,
        num_gpus=pool.size.num_gpus,
    )
    finished.set_name(pool.name)
    # A pool may wait for nodes, and one image may take long; workers watch over themselves.
    finished.context.execution_no_progress_timeout_s = -1
    finished.context.max_consecutive_actor_init_deaths = _MAX_INIT_DEATHS
    rows: Any = iter(finished.iter_rows())
    try:
        for row in rows:
            mistake = row.pop("mistake")
            if mistake is not None:
                raise StudyError(mistake)
            yield Written(**row)
    except ray.exceptions.RayError as error:
        _reraise_mistake(error)
        raise
    finally:
        rows.close()  # ends the execution, where not all rows were wanted
        _join_scheduler(finished)


def _quieten_data() -> None:
    """Keep Ray Data's console lines out of the terminal; its own log files keep everything."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _join_scheduler(finished: Any) -> None:
    """Wait for the thread that schedules a data set's execution, which has been told to end.

    Ray Data itself waits two seconds. A thread that is still there when Ray is left ends this whole
    process with status 1, before it has said why it stops. There is no public way to find it.
    """
    scheduler = getattr(finished, "_current_executor", None)
    if isinstance(scheduler, threading.Thread):
        scheduler.join(_MAX_STOP_S)


def _choose_strategy(size: PoolSize, num_tasks: int) -> Any:
    """An accelerator's actor has two calls in flight, so that one decodes while one scores."""
    import ray

    max_actors = min(size.max_actors, num_tasks)
    min_actors = min(size.min_actors, max_actors)
    num_calls = 2 if size.num_gpus else 1
    return ray.data.ActorPoolStrategy(
        min_size=min_actors,
        max_size=max_actors,
        initial_size=min(size.initial_actors or min_actors, max_actors),
        max_tasks_in_flight_per_actor=2 * num_calls,
        max_concurrent_calls_per_actor=num_calls,
        enable_true_multi_threading=num_calls > 1,
    )


def _reraise_mistake(error: BaseException) -> None:
    """Raise the StudyError that a worker has raised, if that is what stopped the pool."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, StudyError):
            raise StudyError(str(cause.args[0])) from error
        cause = cause.__cause__


def _pack_task(shard: Shard, instructions: dict[str, Any]) -> dict[str, str]:
    """One row for a whole shard."""
    return {"task": json.dumps({"shard": asdict(shard), "instructions": instructions})}


class _ShardOperator:
    """Hands shards to a worker; subclassed so that the dashboard shows a telling name."""

    worker: type

    def __init__(self, storage: Storage, arguments: dict[str, Any]) -> None:
        self._storage = storage
        self._worker = self.worker(**arguments)

    def __call__(self, batch: pa.Table) -> pa.Table:
        tasks = batch["task"].to_pylist()
        try:
            rows = [asdict(part) for task in tasks for part in self._work(task)]
        except StudyError as error:  # as a row, since Ray Data keeps only the text of its cause
            rows = [{"mistake": str(error)}]
        return pa.Table.from_pylist(rows, schema=_WRITTEN)

    def _work(self, task: str) -> list[Written]:
        content = json.loads(task)
        shard = Shard(**content["shard"])
        rows = self._storage.read_rows(shard.table, shard.start, shard.num_rows)
        return list(self._worker.work(rows, **content["instructions"]))


# Of a `Written`, or only of what a StudyError says.
_WRITTEN = pa.schema(
    [
        ("job", pa.string()),
        ("num_rows", pa.int64()),
        ("num_failed", pa.int64()),
        ("path", pa.string()),
        ("mistake", pa.string()),
    ]
)
