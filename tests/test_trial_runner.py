import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from scipy.spatial.distance import pdist

from iqray.embeddings.tables import split_embedding_table
from iqray.storage import Storage
from iqray.training.checkpoints import Checkpoints
from iqray.training.trial_runner import (
    TrialRunner,
    forget_tries,
    list_finished,
    read_results,
    write_failure,
)
from iqray.trials import Trial
from tests.conftest import MakeDataset
from tests.small_trials import make_runner, make_trial


@pytest.fixture
def runner(make_dataset: MakeDataset, tmp_path: Path) -> TrialRunner:
    return make_runner(make_dataset(), tmp_path / "out")


def read_embeddings(storage: Storage, trial_id: str) -> tuple[np.ndarray, list[str]]:
    """Embeddings `(num_images, dim) float32` of a finished trial's test images, with categories."""
    return split_embedding_table(storage.read_table(f"trials/{trial_id}/embeddings.parquet"))


def test_a_trial_leaves_everything_that_defines_and_describes_it(runner: TrialRunner) -> None:
    trial = make_trial()
    assert runner.run(trial) == "ok"
    folder = runner.storage.get_local_path(f"trials/{trial.trial_id}")
    definition = json.loads((folder / "trial.json").read_text())
    assert definition["categories"] == ["ant", "cat", "dog"]
    assert definition["recipe"]["input_px"] == 32
    assert definition["versions"] == {"torch": "x"}
    assert definition["packages"]["torch"] == torch.__version__
    assert definition["hardware"]["device"] == "cpu"
    assert definition["code"] == runner.code
    assert (definition["recipe_name"], definition["is_preview"]) == ("demo", True)
    rows = [json.loads(line) for line in (folder / "log.jsonl").open()]
    assert rows[-1]["step"] == 2
    assert {"loss", "top1", "learning_rate", "images_per_s", "seconds", "epoch"} <= set(rows[0])
    assert not (folder / "checkpoint").exists()
    predictions = runner.storage.read_table(f"trials/{trial.trial_id}/predictions.parquet")
    assert predictions["path"].to_pylist() == [
        f"val/{category}/{number:04d}.jpg" for category in trial.categories for number in range(2)
    ]
    assert set(predictions["predicted"].to_pylist()) <= set(trial.categories)
    assert list_finished(runner.storage, [trial.trial_id, "other"]) == {trial.trial_id}


def test_result_agrees_with_predictions_and_embeddings(runner: TrialRunner) -> None:
    trial = make_trial()
    runner.run(trial)
    result = read_results(runner.storage, [trial.trial_id])[trial.trial_id]
    embeddings, categories = read_embeddings(runner.storage, trial.trial_id)
    assert embeddings.shape == (6, 2048)
    assert categories == ["ant", "ant", "cat", "cat", "dog", "dog"]
    assert result["num_pairs"] == 15
    assert result["distance"] == pytest.approx(pdist(embeddings.astype(np.float64)).sum(), rel=1e-5)
    assert result["mean_distance"] == pytest.approx(result["distance"] / 15)
    predictions = runner.storage.read_table(f"trials/{trial.trial_id}/predictions.parquet")
    right = [row["predicted"] == row["category"] for row in predictions.to_pylist()]
    assert result["top1"] == pytest.approx(np.mean(right))
    assert result["top5"] == result["top5_images"] == 1.0
    assert result["top1_images"] == pytest.approx(np.mean(right))  # two images per category
    assert (result["chance_top1"], result["chance_top5"]) == (1 / 3, 1.0)
    assert (result["num_restarts"], result["learning_rate_factor"]) == (0, 1.0)


def test_accuracies_over_images_and_over_categories_differ(runner: TrialRunner) -> None:
    """With one test image in two categories and two in the third."""
    trial = dataclasses.replace(make_trial(), num_matched=1)
    manifest = runner.manifests["d"]
    left_out = pc.is_in(
        manifest["path"], value_set=pa.array(["val/ant/0001.jpg", "val/cat/0001.jpg"])
    )
    runner = dataclasses.replace(runner, manifests={"d": manifest.filter(pc.invert(left_out))})
    runner.run(trial)
    result = read_results(runner.storage, [trial.trial_id])[trial.trial_id]
    rows = runner.storage.read_table(f"trials/{trial.trial_id}/predictions.parquet").to_pylist()
    right = {(row["category"], row["path"]): row["category_rank"] == 1 for row in rows}
    shares = [
        np.mean([hit for (own, _), hit in right.items() if own == category])
        for category in trial.categories
    ]
    assert len(rows) == 4
    assert result["top1"] == pytest.approx(np.mean(shares))
    assert result["top1_images"] == pytest.approx(np.mean(list(right.values())))


def test_saved_model_loads_into_plain_torchvision(runner: TrialRunner) -> None:
    import torchvision
    from safetensors.torch import load

    trial = make_trial()
    runner.run(trial)
    data = runner.storage.read_bytes(f"trials/{trial.trial_id}/model.safetensors")
    torchvision.models.resnet50(num_classes=3).load_state_dict(load(data), strict=True)


def test_a_trial_on_chosen_images_is_one_on_a_dataset_without_the_others(
    runner: TrialRunner,
) -> None:
    manifest = runner.manifests["d"]
    usable = manifest.filter(pc.equal(manifest["split"], "train"))
    is_kept = pc.invert(pc.match_substring(usable["path"], "0001.jpg"))
    ids = usable.filter(is_kept)["image_id"].to_numpy()
    trial = dataclasses.replace(make_trial(num_steps=3), chosen=ids[::-1])
    assert runner.run(trial) == "ok"
    found = read_trial(runner, trial)
    table = runner.storage.read_table(f"trials/{trial.trial_id}/train_images.parquet")
    assert table.num_rows == 6  # of three categories
    assert set(table["image_id"].to_pylist()) < set(ids.tolist())
    packs = len(list(runner.cache.rglob("sums.json"))) if runner.cache else 0
    assert runner.run(make_trial()) == "ok"  # on all images, from the same packs
    assert runner.cache is not None
    assert len(list(runner.cache.rglob("sums.json"))) == packs

    lost = manifest.filter(
        pc.or_(
            pc.equal(manifest["split"], "test"),
            pc.is_in(manifest["image_id"], value_set=pa.array(ids)),
        )
    )
    runner.storage.delete_folder(f"trials/{trial.trial_id}")
    plain = dataclasses.replace(trial, chosen=None)
    assert dataclasses.replace(runner, manifests={"d": lost}).run(plain) == "ok"
    assert read_trial(runner, plain) == found


def test_a_trial_of_no_steps_leaves_torchvisions_initial_weights(runner: TrialRunner) -> None:
    import torchvision
    from safetensors.torch import load

    trial = dataclasses.replace(make_trial(seed=5, num_steps=0), chosen=np.empty(0, np.int64))
    assert runner.run(trial) == "ok"
    data, rows = read_trial(runner, trial)
    assert rows == []
    torch.manual_seed(5)
    plain = torchvision.models.resnet50(num_classes=3).state_dict()
    state = load(data)
    assert set(state) == set(plain)
    assert all(torch.equal(state[name], value) for name, value in plain.items())
    result = read_results(runner.storage, [trial.trial_id])[trial.trial_id]
    assert (result["num_steps"], result["num_train_images"]) == (0, 0)
    assert (result["final_loss"], result["num_restarts"]) == (None, 0)
    assert 0 <= result["top1"] <= 1
    assert result["distance"] > 0


def test_a_trial_gives_the_same_numbers_after_another_one(runner: TrialRunner) -> None:
    first, other = make_trial(), make_trial(seed=1, categories=("ant", "bee"))
    runner.run(first)
    alone, _ = read_embeddings(runner.storage, first.trial_id)
    runner.run(other)
    runner.run(first)
    np.testing.assert_array_equal(read_embeddings(runner.storage, first.trial_id)[0], alone)


def test_a_changed_image_is_refused(runner: TrialRunner) -> None:
    trial = make_trial()
    root = Path(runner.sources["d"].root.uri)
    other = (root / "train/dog/0000.jpg").read_bytes()
    (root / "train/cat/0000.jpg").write_bytes(other)
    assert runner.run(trial) == "failed"
    failure = read_results(runner.storage, [trial.trial_id])[trial.trial_id]
    assert "train/cat/0000.jpg' has changed since its manifest was made" in failure["reason"]


def test_distances_are_taken_at_the_matched_count(runner: TrialRunner) -> None:
    trial = dataclasses.replace(make_trial(), num_matched=1)
    runner.run(trial)
    assert read_results(runner.storage, [trial.trial_id])[trial.trial_id]["num_pairs"] == 3


class Interruption(BaseException):
    """Stands for a process that ends: nothing in the package catches it."""


@dataclasses.dataclass(frozen=True)
class EndingStorage(Storage):
    """A root whose user ends right after a checkpoint was written, as `is_last` says of it."""

    is_last: Callable[[dict[str, Any]], bool]

    def write_json(self, path: str, value: Any) -> None:
        super().write_json(path, value)
        if path.endswith("checkpoint/state.json") and self.is_last(value):
            raise Interruption


def interrupt(runner: TrialRunner, is_last: Callable[[dict[str, Any]], bool]) -> TrialRunner:
    """The same runner with a checkpoint after every step, until one is the last."""
    storage = EndingStorage(runner.storage.root, is_last)
    return dataclasses.replace(runner, storage=storage, checkpoint_s=0)


def read_trial(runner: TrialRunner, trial: Trial) -> tuple[bytes, list[dict[str, Any]]]:
    folder = f"trials/{trial.trial_id}"
    log = runner.storage.read_bytes(f"{folder}/log.jsonl").decode().splitlines()
    rows = [json.loads(line) for line in log]
    for row in rows:
        del row["seconds"], row["images_per_s"]
    return runner.storage.read_bytes(f"{folder}/model.safetensors"), rows


def test_an_interrupted_trial_ends_as_an_unbroken_one(runner: TrialRunner) -> None:
    trial = make_trial(num_steps=6)
    runner.run(trial)
    unbroken = read_trial(runner, trial)
    runner.storage.delete_folder(f"trials/{trial.trial_id}")
    with pytest.raises(Interruption):
        interrupt(runner, lambda state: state["state"]["step"] == 4).run(trial)
    kept = Checkpoints(runner.storage, trial.trial_id, 0).read()
    assert kept.state is not None
    assert kept.state.step == 4
    assert runner.run(trial) == "ok"
    assert read_trial(runner, trial) == unbroken


def make_hopeless_trial(learning_rate: float = 1e-9) -> Trial:
    """Learns nothing at its rate; watched from the third of its six steps on."""
    return make_trial(num_steps=6, learning_rate=learning_rate, watch_from=0.5, chance_margin=0.5)


def test_a_stuck_trial_is_begun_once_more_at_half_the_rate(runner: TrialRunner) -> None:
    trial = make_hopeless_trial()
    assert runner.run(trial) == "not_converged"
    result = read_results(runner.storage, [trial.trial_id])[trial.trial_id]
    assert result["reason"].startswith("stuck at chance level")
    assert (result["num_restarts"], result["learning_rate_factor"]) == (1, 0.5)
    assert result["given_up"][0]["reason"].startswith("stuck at chance level")
    assert 0 <= result["top1"] <= 1
    unbroken = read_trial(runner, trial)
    assert [(row["attempt"], row["step"]) for row in unbroken[1]] == [(0, 3), (1, 3)]
    first, second = unbroken[1]
    assert second["learning_rate"] == first["learning_rate"] / 2

    runner.storage.delete_folder(f"trials/{trial.trial_id}")
    with pytest.raises(Interruption):  # in the second attempt
        interrupt(runner, lambda state: bool(state["given_up"] and state["state"])).run(trial)
    kept = Checkpoints(runner.storage, trial.trial_id, 0).read()
    assert (len(kept.given_up), kept.state and kept.state.step) == (1, 1)
    assert runner.run(trial) == "not_converged"
    assert read_trial(runner, trial) == unbroken


def test_a_trial_that_diverges_can_converge_at_half_the_rate(runner: TrialRunner) -> None:
    """At a rate that is infinite in float32, while half of it is not, and tiny gradients."""
    rate = 1.9 * float(torch.finfo(torch.float32).max)
    trial = make_trial(num_steps=4, learning_rate=rate, weight_decay=0.0, clip_norm=1e-40)
    assert runner.run(trial) == "ok"
    result = read_results(runner.storage, [trial.trial_id])[trial.trial_id]
    assert (result["num_restarts"], result["given_up"][0]["final_loss"]) == (1, None)
    assert result["given_up"][0]["reason"] == "diverged at step 2"
    assert read_trial(runner, trial)[1][0]["loss"] is None


def test_a_failing_trial_leaves_its_reason_and_can_be_run_again(runner: TrialRunner) -> None:
    trial = make_trial()
    image = Path(runner.sources["d"].root.uri) / "val/cat/0000.jpg"
    data = image.read_bytes()
    image.unlink()
    assert runner.run(trial) == "failed"
    failure = read_results(runner.storage, [trial.trial_id])[trial.trial_id]
    assert failure["status"] == "failed"
    assert "val/cat/0000.jpg" in failure["reason"]
    assert list_finished(runner.storage, [trial.trial_id]) == set()
    image.write_bytes(data)
    assert runner.run(trial) == "ok"
    assert read_results(runner.storage, [trial.trial_id])[trial.trial_id]["status"] == "ok"
    names = runner.storage.list_names(f"trials/{trial.trial_id}")
    assert "result.json" in names
    assert not names & {"failure.json", "checkpoint"}


def test_a_process_that_ends_after_its_result_leaves_no_failure(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    write_failure(storage, "t", "first", "details")
    storage.write_json("trials/t/result.json", {"status": "ok"})
    for _ in range(2):
        forget_tries(storage, "t")
        write_failure(storage, "t", "ended", "details")
    assert storage.list_names("trials/t") == {"result.json"}


def test_a_trial_without_room_for_its_images_fails_before_it_trains(runner: TrialRunner) -> None:
    trial = make_trial()
    # Room for the 9 training images of at most 37 x 43 px, and not for those of the test too.
    own = dataclasses.replace(runner, pack_cache_gib=9 * 37 * 44 * 3 * 1.2 / 2**30)
    assert own.run(trial) == "failed"
    failure = read_results(runner.storage, [trial.trial_id])[trial.trial_id]
    assert "raise training.pack_cache_gib" in failure["reason"]
    assert not runner.storage.exists(f"trials/{trial.trial_id}/log.jsonl")
    assert dataclasses.replace(runner, pack_cache_gib=1.0).run(trial) == "ok"
