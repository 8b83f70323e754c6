import logging
from pathlib import Path

import pytest
import torch

from iqray.storage import Storage
from iqray.training.checkpoints import Checkpoints, Progress
from iqray.training.loop import TrainState
from iqray.training.trial_runner import forget_tries

ROWS = ({"attempt": 0, "step": 3, "loss": 0.1 + 0.2}, {"attempt": 0, "step": 6, "loss": None})
GIVEN_UP = ({"status": "not_converged", "reason": "diverged at step 5"},)


def make_progress(step: int = 7) -> Progress:
    state = TrainState(
        step,
        {"w": torch.rand(3, 2, 4, 4).contiguous(memory_format=torch.channels_last)},
        {"w": torch.rand(3, 2, 4, 4)},
        losses=torch.rand(2),
        num_correct=torch.tensor([1, 2]),
    )
    return Progress(ROWS, GIVEN_UP, 12.5, state)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "trials/t/checkpoint"


def test_what_is_written_is_read_bit_for_bit(storage: Storage) -> None:
    progress = make_progress()
    Checkpoints(storage, "t", 0).write(progress)
    read = Checkpoints(storage, "t", 0).read()
    assert (read.rows, read.given_up, read.train_s) == (ROWS, GIVEN_UP, 12.5)
    assert read.state is not None
    assert progress.state is not None
    assert read.state.step == 7
    for name in ("losses", "num_correct"):
        assert torch.equal(getattr(read.state, name), getattr(progress.state, name))
    assert torch.equal(read.state.model["w"], progress.state.model["w"])
    assert torch.equal(read.state.momenta["w"], progress.state.momenta["w"])


def test_only_the_latest_is_kept_and_none_after_the_end(storage: Storage, folder: Path) -> None:
    checkpoints = Checkpoints(storage, "t", 0)
    for step in (1, 2):
        checkpoints.write(make_progress(step))
    assert {path.name for path in folder.iterdir()} == {"state.json", "1-2.safetensors"}
    checkpoints.write(Progress(ROWS))
    assert {path.name for path in folder.iterdir()} == {"state.json"}
    assert checkpoints.read() == Progress(ROWS)
    forget_tries(storage, "t")
    assert not folder.exists()
    assert checkpoints.read() == Progress()


def flip_last_byte(folder: Path) -> None:
    path = folder / "1-7.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flip_last_byte, "another sha256"),
        (lambda folder: (folder / "1-7.safetensors").write_bytes(b"short"), "has 5 bytes"),
        (lambda folder: (folder / "1-7.safetensors").unlink(), "No such file"),
        (lambda folder: (folder / "state.json").write_text("{"), "JSONDecodeError"),
        (lambda folder: (folder / "state.json").write_text('{"version": 0}'), "version 0"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_with_a_line_in_the_log(
    storage: Storage,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    damage,
    reason: str,
) -> None:
    Checkpoints(storage, "t", 0).write(make_progress())
    damage(folder)
    with caplog.at_level(logging.WARNING):
        assert Checkpoints(storage, "t", 0).read() == Progress()
    assert reason in caplog.text
    assert "its trial starts anew" in caplog.text


def test_a_storage_that_refuses_does_not_end_the_training(
    storage: Storage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "trials").write_text("a file where a folder should be")
    with caplog.at_level(logging.WARNING):
        Checkpoints(storage, "t", 0).write(make_progress())
    assert "no checkpoint could be written" in caplog.text


def test_a_checkpoint_is_due_by_the_clock_or_when_the_machine_goes(storage: Storage) -> None:
    assert Checkpoints(storage, "t", 0).is_due()
    assert not Checkpoints(storage, "t", 1000).is_due()
    assert Checkpoints(storage, "t", 1000, is_leaving=lambda: True).is_due()
    reader = Checkpoints(storage, "t", 0, is_writer=False, is_leaving=lambda: True)
    assert not reader.is_due()
    reader.write(make_progress())
    assert reader.read() == Progress()
