"""Logs are read of the last attempt, and of the trials that have one."""

import json

import pandas as pd

from iqray.report.trial_logs import EPOCH_COLUMNS, list_machines, read_epochs
from iqray.storage import Storage


def write_log(storage, trial_id, *rows):
    lines = [
        json.dumps({"attempt": attempt, "epoch": epoch, "loss": loss, "top1": 0.5, "step": 1})
        for attempt, epoch, loss in rows
    ]
    storage.write_bytes(f"trials/{trial_id}/log.jsonl", "\n".join(lines).encode())


def test_only_the_last_attempt_counts(tmp_path):
    storage = Storage(str(tmp_path))
    write_log(storage, "restarted", (0, 1, 9.0), (0, 2, None), (1, 1, 3.0), (1, 2, 2.0))
    write_log(storage, "straight", (0, 1, 4.0))
    epochs = read_epochs(storage, ["restarted", "without_log", "straight"])
    assert list(epochs.columns) == EPOCH_COLUMNS
    assert epochs["trial_id"].tolist() == ["restarted", "restarted", "straight"]
    assert epochs["loss"].tolist() == [3.0, 2.0, 4.0]
    assert read_epochs(storage, ["without_log"]).empty


def test_a_loss_that_was_not_finite_is_null(tmp_path):
    storage = Storage(str(tmp_path))
    write_log(storage, "diverged", (0, 1, 4.0), (0, 2, None))
    assert pd.isna(read_epochs(storage, ["diverged"])["loss"].iloc[-1])


def test_machines_are_named_once_by_what_trained(tmp_path):
    storage = Storage(str(tmp_path))
    for trial_id, hardware in (
        ("a", {"gpu": "NVIDIA H200", "cpu": "AMD EPYC"}),
        ("b", {"gpu": "NVIDIA H200", "cpu": "AMD EPYC"}),
        ("c", {"cpu": "AMD EPYC"}),
        ("d", {"cpu": None, "machine": "arm64"}),
    ):
        storage.write_json(f"trials/{trial_id}/trial.json", {"hardware": hardware})
    machines = list_machines(storage, ["a", "b", "c", "d", "without"])
    assert machines == ["AMD EPYC", "NVIDIA H200", "arm64"]
