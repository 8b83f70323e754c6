"""Which images are embedded by which network. Pure.

A trial's own test images at the last Linear layer are embedded by the trial itself; what is here
comes on top, from networks that are there already.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from iqray.embeddings.network_kinds import Network
from iqray.identity import hash_content, hash_rows
from iqray.settings.embedding import ALL_CATEGORIES, ALL_SUBSETS, OWN, TRIALS
from iqray.study import Study
from iqray.trials import Cell, Trial
from iqray.usable_images import select_usable


@dataclass(frozen=True)
class ImageSet:
    """Images that are embedded together.

    Attributes:
        dataset: of the study, or name of extra images.
        name: own, all_subsets or all_categories.
        images: rows of the manifest, by category and path.
        content: hash of the rows.
    """

    dataset: str
    name: str
    images: pa.Table
    content: str


class ImageSets:
    """The image sets of a study, each made once.

    Args:
        study: with its embedding settings.
        cells: of the grid.
        trials: by id.
        subsets: table of `schemas.SUBSETS`.
        manifests: of the datasets and of the extra images, by name.
    """

    def __init__(
        self,
        study: Study,
        cells: Sequence[Cell],
        trials: Mapping[str, Trial],
        subsets: pa.Table,
        manifests: Mapping[str, pa.Table],
    ) -> None:
        self._study = study
        self._trials = trials
        self._manifests = manifests
        self._made: dict[tuple[str, str, frozenset[str] | None], ImageSet] = {}
        self._test_images: dict[str, pa.Table] = {}
        self._by_metric = _group_categories(subsets)
        self._metrics: dict[str, set[str]] = {}
        for cell in cells:
            self._metrics.setdefault(cell.trial_id, set()).add(cell.metric)

    def list_for(self, network: Network) -> list[ImageSet]:
        """Sets that a network is asked to embed: of its own dataset, or of all if it has none."""
        settings = self._study.embeddings
        names = [dataset.name for dataset in self._study.datasets]
        found = [
            self._select(dataset, name, network)
            for dataset in ([network.dataset] if network.dataset else names)
            for name in settings.images
            if name != OWN or network.kind == TRIALS
        ]
        extra = [self._make(each.name, ALL_CATEGORIES, None) for each in settings.extra_images]
        return [each for each in (*found, *extra) if each.images.num_rows]

    def _select(self, dataset: str, name: str, network: Network) -> ImageSet:
        if name == OWN:
            categories = frozenset(self._trials[network.name].categories)
        elif name == ALL_SUBSETS:
            metrics = self._metrics.get(network.name, set(self._study.metrics))
            categories = frozenset().union(*(self._by_metric[dataset, each] for each in metrics))
        else:
            return self._make(dataset, name, None)
        return self._make(dataset, name, categories)

    def _make(self, dataset: str, name: str, categories: frozenset[str] | None) -> ImageSet:
        key = (dataset, name, categories)
        if key not in self._made:
            images = _keep_categories(self._get_test_images(dataset), categories)
            self._made[key] = ImageSet(dataset, name, images, hash_rows(images))
        return self._made[key]

    def _get_test_images(self, dataset: str) -> pa.Table:
        if dataset not in self._test_images:
            self._test_images[dataset] = _select_test_images(self._manifests[dataset])
        return self._test_images[dataset]


def list_trained(
    trials: Iterable[Trial], results: Mapping[str, Mapping[str, Any]]
) -> list[Network]:
    """Networks of finished trials.

    Args:
        trials: that are finished.
        results: of each, by its id; a trial that was trained again is another network.
    """
    return [
        Network(
            name=trial.trial_id,
            kind=TRIALS,
            architecture=trial.architecture,
            path=f"trials/{trial.trial_id}/model.safetensors",
            key=hash_content([trial.trial_id, results[trial.trial_id]]),
            dataset=trial.dataset,
            seed=trial.seed,
        )
        for trial in trials
    ]


def _group_categories(subsets: pa.Table) -> dict[tuple[str, str], set[str]]:
    """Categories of all subsets by dataset and metric."""
    groups: dict[tuple[str, str], set[str]] = {}
    for row in subsets.select(["dataset", "metric", "category"]).to_pylist():
        groups.setdefault((row["dataset"], row["metric"]), set()).add(row["category"])
    return groups


def _select_test_images(manifest: pa.Table) -> pa.Table:
    """Usable test images, or all of a manifest without a test split, by category and path."""
    usable = select_usable(manifest)
    splits = set(manifest["split"].unique().to_pylist())
    chosen = pc.equal(usable["split"], "test" if "test" in splits else "train")
    return usable.filter(chosen).sort_by([("category", "ascending"), ("path", "ascending")])


def _keep_categories(images: pa.Table, categories: frozenset[str] | None) -> pa.Table:
    """Images of some categories, or of all for none."""
    if categories is None:
        return images
    names = pa.array(sorted(categories), pa.string())
    return images.filter(pc.is_in(images["category"], value_set=names))
