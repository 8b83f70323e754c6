"""What trials of an invented study leave, where a report reads it, and images that it shows."""

import json
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pandas as pd
import pyarrow as pa

from iqray.benchmarks.inputs import generate_images
from iqray.embeddings.tables import build_embedding_table
from iqray.storage import Storage

_NUM_DRAWN = 24  # distinct images


def write_logs(
    storage: Storage, trial_ids: Iterable[str], num_epochs: int, generator: np.random.Generator
) -> None:
    """Write the logs of trials, whose loss falls, and the machine that each ran on."""
    for trial_id in trial_ids:
        folder = f"trials/{trial_id}"
        log = "".join(json.dumps(row) + "\n" for row in _draw_log(num_epochs, generator))
        storage.write_bytes(f"{folder}/log.jsonl", log.encode())
        storage.write_json(f"{folder}/trial.json", {"hardware": {"cpu": "invented CPU"}})


def write_shown_embeddings(
    storage: Storage,
    cells: pd.DataFrame,
    subsets: pd.DataFrame,
    manifests: Mapping[str, pa.Table],
    dim: int,
    generator: np.random.Generator,
) -> None:
    """Write `(num_images, dim)` embeddings of the trials whose centroids a report shows."""
    keys = ["dataset", "architecture", "metric", "seed"]
    shown = cells[(cells[keys] == cells[keys].sort_values(keys).iloc[0]).all(axis="columns")]
    for cell in shown.to_dict("records"):
        place = pd.Series({key: cell[key] for key in ("dataset", "metric", "subset")})
        own = subsets[(subsets[place.index] == place).all(axis="columns")]
        manifest = manifests[cell["dataset"]].to_pandas()
        is_own = (manifest["split"] == "test") & manifest["category"].isin(own["category"])
        images = pa.Table.from_pandas(manifest[is_own], preserve_index=False)
        centres = {name: generator.normal(0, 1, dim) for name in own["category"]}
        embeddings = np.stack([centres[name] for name in images["category"].to_pylist()])
        embeddings += generator.normal(0, 1, embeddings.shape)
        table = build_embedding_table(images, embeddings.astype(np.float32))
        storage.write_table(f"trials/{cell['trial_id']}/embeddings.parquet", table)


def _draw_log(num_epochs: int, generator: np.random.Generator) -> Iterator[dict[str, float]]:
    rate = generator.uniform(0.02, 0.05)
    for epoch in range(1, num_epochs + 1):
        loss = 1.0 + 2.8 * float(np.exp(-rate * epoch)) + generator.normal(0, 0.02)
        yield {"attempt": 0, "epoch": epoch, "loss": loss, "top1": 1 - loss / 4}


def write_images(
    storage: Storage, manifests: Mapping[str, pa.Table], quantiles: pd.DataFrame
) -> None:
    """The images that a report may show: those of a quantile, and each category's first of test."""
    drawn = generate_images(_NUM_DRAWN)
    for dataset, manifest in manifests.items():
        firsts = {f"test/{name}/00000.jpg" for name in manifest["category"].unique().to_pylist()}
        paths = firsts | set(quantiles.loc[quantiles["dataset"] == dataset, "path"])
        for number, path in enumerate(sorted(paths)):
            storage.write_bytes(f"data/{dataset}/{path}", drawn[number % _NUM_DRAWN])
