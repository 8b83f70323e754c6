"""Run one trial: packed images in; log, predictions, embeddings, model and, last, the result.

Writes `trials/<trial_id>/`: `trial.json` (everything that defines the trial), `log.jsonl`,
`predictions.parquet`, `embeddings.parquet`, what these cover (`iqray.results.trial_distances`),
`model.safetensors` where the study keeps models, `train_images.parquet` where the trial takes only
some of its categories' training images, and last `result.json`, whose existence means that the
trial is finished. A trial that fails leaves `failure.json` instead, and keeps its checkpoint
(`iqray.training.checkpoints`) for the next try; both are deleted when the trial is finished.
"""

import contextlib
import gc
import json
import logging
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from iqray import schemas
from iqray.embeddings.tables import build_embedding_table
from iqray.finite import drop_non_finite
from iqray.inputs.sources import ImageSource
from iqray.node_cache import get_cache_folder
from iqray.storage import Storage
from iqray.training.provenance import describe_machine
from iqray.trials import Trial, get_checkpoint_folder

if TYPE_CHECKING:
    from iqray.packs.packing import Pack, PackedImages
    from iqray.training.checkpoints import Checkpoints
    from iqray.training.team import Team

logger = logging.getLogger(__name__)

_TEST_BATCH_SIZE = 64


def list_finished(storage: Storage, trial_ids: Iterable[str]) -> set[str]:
    """Which of the trials have a result."""
    known = storage.list_names("trials")
    return {
        trial_id
        for trial_id in trial_ids
        if trial_id in known and storage.exists(f"trials/{trial_id}/result.json")
    }


def read_results(storage: Storage, trial_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Results by trial id; a trial that failed has its failure, one that never ran has none."""
    results = {}
    known = storage.list_names("trials")
    for trial_id in trial_ids:
        if trial_id not in known:
            continue
        for name in ("result.json", "failure.json"):
            if storage.exists(f"trials/{trial_id}/{name}"):
                results[trial_id] = dict(storage.read_json(f"trials/{trial_id}/{name}"))
                break
    return results


def write_failure(storage: Storage, trial_id: str, reason: str, details: str) -> None:
    """Record why a trial has no result; the next submit tries it again.

    Nothing is written where it has one: its process ended after its work.
    """
    # A store that does not answer refuses what is written next as well, with its reason.
    with contextlib.suppress(OSError):
        if storage.exists(f"trials/{trial_id}/result.json"):
            return
    failure = {"status": "failed", "reason": reason, "details": details}
    storage.write_json(f"trials/{trial_id}/failure.json", failure)


def forget_tries(storage: Storage, trial_id: str) -> None:
    """Delete what the tries of a finished trial have left: the checkpoint, the failure of one."""
    storage.delete_folder(get_checkpoint_folder(trial_id))
    failure = f"trials/{trial_id}/failure.json"
    if storage.exists(failure):
        storage.delete(failure)


@dataclass(frozen=True)
class TrialRunner:
    """What a process needs to run any trial of a study.

    Attributes:
        storage: the study's output root.
        manifests: by dataset.
        sources: of the images, by dataset.
        save_models: whether trained weights are kept.
        num_threads: of torch on the CPU.
        device: torch's name of it.
        pack_cache_gib: space for packed images on this node; if none, `PackRoom` chooses.
        cache: this node's folder for what its processes share.
        checkpoint_s: seconds between checkpoints of a trial.
        code: what is known of the code that runs, for `trial.json`.
    """

    storage: Storage
    manifests: Mapping[str, pa.Table]
    sources: Mapping[str, ImageSource]
    save_models: bool
    num_threads: int = 1
    device: str = "cpu"
    pack_cache_gib: float | None = None
    cache: Path | None = None  # none for the node's own, which only the process there knows
    checkpoint_s: float = 300
    code: Mapping[str, Any] = field(default_factory=dict)

    def run(
        self,
        trial: Trial,
        team: "Team | None" = None,
        is_leaving: Callable[[], bool] = lambda: False,
    ) -> str:
        """Run a trial to its result, from its checkpoint where it has one.

        A Python error becomes a failure record. In a team of several it is raised instead, as the
        other processes would wait for this one.

        Args:
            trial: what to train and test.
            team: the processes that train it together, each of which calls this; none for one
                process. Only rank 0 writes.
            is_leaving: see `iqray.training.checkpoints.Checkpoints`.

        Returns:
            The status: ok, not_converged, or failed.
        """
        from iqray.training.checkpoints import Checkpoints
        from iqray.training.team import ALONE

        team = team or ALONE
        checkpoints = Checkpoints(
            self.storage, trial.trial_id, self.checkpoint_s, team.is_leader, is_leaving
        )
        try:
            result = self._train_and_test(trial, team, checkpoints)
        except Exception as error:  # whatever goes wrong here must not stop the other trials
            if team.size > 1 or _is_process_broken(error):
                raise  # not to be trusted with another trial; Ray replaces the process
            logger.exception("trial %s failed", trial.trial_id)
            reason = f"{type(error).__name__}: {error}"
            write_failure(self.storage, trial.trial_id, reason, traceback.format_exc())
            return "failed"
        finally:
            _free_memory(self.device)
        if team.is_leader:
            self.storage.write_json(f"trials/{trial.trial_id}/result.json", result)
            forget_tries(self.storage, trial.trial_id)
        return str(result["status"])

    def _train_and_test(
        self, trial: Trial, team: "Team", checkpoints: "Checkpoints"
    ) -> dict[str, Any]:
        import torch

        from iqray.packs.packing import concatenate
        from iqray.training.architectures import InitialWeights, create_model
        from iqray.training.trial_images import open_training_images, select_images
        from iqray.training.trial_training import train_trial

        torch.set_num_threads(self.num_threads)
        cache = self.cache or get_cache_folder()
        if team.is_leader:
            definition = {
                "trial_id": trial.trial_id,
                **trial.definition,
                "recipe_name": trial.recipe.name,
                "is_preview": trial.recipe.is_preview,
                **describe_machine(self.device, self.num_threads),
                "code": dict(self.code),
            }
            self.storage.write_json(f"trials/{trial.trial_id}/trial.json", definition)
            if trial.chosen is not None:
                self._write_train_images(trial)
        manifest = self.manifests[trial.dataset]
        open_packs = partial(self._open_packs, trial, cache)
        test_images = select_images(manifest, trial, "test")
        # Both before the training, so that one without room for its images fails at once.
        train_data = open_training_images(manifest, trial, open_packs)
        test_data = concatenate(open_packs(test_images))
        trained = train_trial(
            trial,
            train_data,
            lambda: create_model(
                trial.architecture,
                len(trial.categories),
                trial.recipe.architectures[trial.architecture].input_px,
                trial.seed,
                InitialWeights(cache / "initial_weights"),
            ),
            torch.device(self.device),
            checkpoints,
            team,
        )
        result = {
            **trained.describe(),
            "num_categories": len(trial.categories),
            "num_train_images": len(train_data),
        }
        if not team.is_leader:
            return result
        rows = trained.progress.rows
        log = "".join(json.dumps(row) + "\n" for row in rows)
        self.storage.write_bytes(f"trials/{trial.trial_id}/log.jsonl", log.encode())
        if self.save_models:
            self._write_model(trial, trained.model)
        return result | self._test(trial, trained.model, test_images, test_data)

    def _test(
        self, trial: Trial, model: Any, images: pa.Table, data: "PackedImages"
    ) -> dict[str, Any]:
        """Write what the trained model makes of the test images, and measure it."""
        from iqray.embeddings.layers import embed
        from iqray.results.distances import PAPER_DEFINITION
        from iqray.results.trial_distances import write_distances

        input_px = trial.recipe.architectures[trial.architecture].input_px
        embeddings, logits = embed(model, data, input_px, _TEST_BATCH_SIZE)
        self._write_test_tables(trial, images, embeddings, logits)
        space = write_distances(self.storage, trial, images, embeddings)
        return {
            "num_test_images": images.num_rows,
            **_measure_accuracy(trial, logits, data.targets),
            "distance": drop_non_finite(space.totals[PAPER_DEFINITION]),
            "mean_distance": drop_non_finite(space.means[PAPER_DEFINITION]),
            "num_pairs": space.num_pairs[PAPER_DEFINITION],
        }

    def _open_packs(self, trial: Trial, cache: Path, images: pa.Table) -> "list[Pack]":
        """Images of the trial's categories, decoded where this node has no packs of them yet."""
        from iqray.packs.cache import PackCache

        stored_px = trial.recipe.compute_stored_px(trial.architecture)
        return PackCache(cache / "packs", self.pack_cache_gib).open(
            self.sources[trial.dataset], images, trial.categories, stored_px, self.num_threads
        )

    def _write_train_images(self, trial: Trial) -> None:
        from iqray.training.trial_images import select_images

        images = select_images(self.manifests[trial.dataset], trial, "train")
        table = images.select(schemas.TRAIN_IMAGES.names).cast(schemas.TRAIN_IMAGES)
        self.storage.write_table(f"trials/{trial.trial_id}/train_images.parquet", table)

    def _write_test_tables(
        self, trial: Trial, images: pa.Table, embeddings: np.ndarray, logits: np.ndarray
    ) -> None:
        from iqray.training.evaluation import rank_targets

        folder = f"trials/{trial.trial_id}"
        names = np.array(trial.categories)
        categories = images["category"].to_pylist()
        targets = np.searchsorted(names, categories)
        predictions = {
            "image_id": images["image_id"],
            "path": images["path"],
            "category": images["category"],
            "predicted": names[logits.argmax(axis=1)],
            "category_rank": rank_targets(logits, targets),
        }
        self.storage.write_table(
            f"{folder}/predictions.parquet", pa.table(predictions, schema=schemas.PREDICTIONS)
        )
        self.storage.write_table(
            f"{folder}/embeddings.parquet", build_embedding_table(images, embeddings)
        )

    def _write_model(self, trial: Trial, model: Any) -> None:
        from safetensors.torch import save

        state = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
        self.storage.write_bytes(f"trials/{trial.trial_id}/model.safetensors", save(state))


def _free_memory(device: str) -> None:
    """Give a trial's GPU memory back, for the next trial or for others that share the GPU."""
    if device != "cuda":
        return
    import torch

    gc.collect()
    torch.cuda.empty_cache()


def _is_process_broken(error: Exception) -> bool:
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError | torch.AcceleratorError)


def _measure_accuracy(trial: Trial, logits: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Accuracies, over categories and over images, with their chance levels."""
    from iqray.training.evaluation import compute_topk_accuracy, rank_targets

    category_rank = rank_targets(logits, targets)
    num_categories = len(trial.categories)
    return {
        **{
            f"top{k}": compute_topk_accuracy(category_rank, targets, k, num_categories)
            for k in (1, 5)
        },
        **{
            f"top{k}_images": compute_topk_accuracy(
                category_rank, targets, k, num_categories, average="image"
            )
            for k in (1, 5)
        },
        **{f"chance_top{k}": min(k, num_categories) / num_categories for k in (1, 5)},
    }
