"""What trials have logged: their loss by epoch, and the machines that they ran on.

Reads `trials/<trial_id>/log.jsonl` and `trial.json`; writes nothing.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd

from iqray.storage import Storage

# Small files at once: an object store answers each after tens of milliseconds.
_NUM_READERS = 16

EPOCH_COLUMNS = ["trial_id", "epoch", "loss", "top1"]


def read_epochs(storage: Storage, trial_ids: Sequence[str]) -> pd.DataFrame:
    """Epochs of each trial's last attempt.

    Returns:
        Columns `EPOCH_COLUMNS`: loss in nats and top1 in [0, 1], both on training images. A loss
        that was not finite is null. A trial without a log has no rows.
    """
    paths = [f"trials/{trial_id}/log.jsonl" for trial_id in trial_ids]
    rows = [
        {"trial_id": trial_id, **row}
        for trial_id, log in zip(trial_ids, _read_all(storage, paths), strict=True)
        for row in _take_last_attempt([json.loads(line) for line in (log or b"").splitlines()])
    ]
    return pd.DataFrame(rows, columns=EPOCH_COLUMNS)


def _take_last_attempt(rows: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    return (row for row in rows if row["attempt"] == rows[-1]["attempt"])


def list_machines(storage: Storage, trial_ids: Sequence[str]) -> list[str]:
    """Hardware that trials ran on, such as `NVIDIA H200` or a CPU's name; each once."""
    paths = [f"trials/{trial_id}/trial.json" for trial_id in trial_ids]
    described = [json.loads(text) for text in _read_all(storage, paths) if text]
    return sorted({_name_machine(trial["hardware"]) for trial in described})


def _name_machine(hardware: dict[str, Any]) -> str:
    """Its GPU, else its CPU, where the system names that."""
    names = (hardware.get("gpu"), hardware.get("cpu"), hardware.get("machine"))
    return next((name for name in names if name), "an unknown machine")


def _read_all(storage: Storage, paths: Sequence[str]) -> list[bytes | None]:
    """Contents of small files, none for one that is not there."""
    read: Callable[[str], bytes | None] = lambda path: _read_optional(storage, path)  # noqa: E731
    with ThreadPoolExecutor(_NUM_READERS) as readers:
        return list(readers.map(read, paths))


def _read_optional(storage: Storage, path: str) -> bytes | None:
    try:
        return storage.read_bytes(path)
    except FileNotFoundError:
        return None
