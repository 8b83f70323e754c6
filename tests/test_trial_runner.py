import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from iqray.trial_runner import TrialRunner, list_finished, read_embeddings, read_results
from tests.conftest import MakeDataset
from tests.small_trials import make_runner, make_trial


@pytest.fixture
def runner(make_dataset: MakeDataset, tmp_path: Path) -> TrialRunner:
    return make_runner(make_dataset(), tmp_path / "out")


def test_a_trial_leaves_everything_that_defines_and_describes_it(runner: TrialRunner) -> None:
    trial = make_trial()
    assert runner.run(trial) == "ok"
    folder = runner.storage.get_local_path(f"trials/{trial.trial_id}")
    definition = json.loads((folder / "trial.json").read_text())
    assert definition["categories"] == ["ant", "cat", "dog"]
    assert definition["recipe"]["input_px"] == 32
    assert [json.loads(line)["step"] for line in (folder / "log.jsonl").open()][-1] == 2
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
    assert result["top5"] == 1.0


def test_saved_model_loads_into_plain_torchvision(runner: TrialRunner) -> None:
    import torchvision
    from safetensors.torch import load

    trial = make_trial()
    runner.run(trial)
    data = runner.storage.read_bytes(f"trials/{trial.trial_id}/model.safetensors")
    torchvision.models.resnet50(num_classes=3).load_state_dict(load(data))


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
