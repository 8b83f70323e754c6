"""Embeddings beyond the trials' own, and RDMs of all, on a whole small study with real Ray."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from scipy.spatial.distance import pdist
from torchvision.io import decode_image
from torchvision.transforms import v2

from iqray.cluster import Cluster
from iqray.embeddings.tables import split_embedding_table
from iqray.errors import StudyError
from iqray.rdms.files import read_rdm
from iqray.recipes import RECIPES
from iqray.run import Run
from iqray.stages.cross_distances import make_cross_distances
from iqray.stages.subsets import make_subsets
from iqray.storage import Storage
from iqray.study_file import parse_study
from iqray.training.architectures import create_model
from tests.conftest import make_pixels
from tests.small_study import write_study
from tests.test_full_grid import run_job


@pytest.fixture(scope="module")
def finished(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Output root and terminal text of a study that asks for every kind of embedding."""
    folder = tmp_path_factory.mktemp("embeddings")
    rng = np.random.default_rng(5)
    for category in ("cup", "owl"):
        (folder / "stimuli" / category).mkdir(parents=True)
        for number in range(3):
            path = folder / "stimuli" / category / f"{number}.png"
            Image.fromarray(make_pixels(rng, 96, 112)).save(path)
    (folder / "stimuli/owl/broken.png").write_bytes(b"no image")
    torch.save(create_model("alexnet", 5, 64, seed=3).state_dict(), folder / "mine.pt")
    study = write_study(
        inputs,
        folder / "out",
        metrics=["brisque"],
        embeddings={
            "images": ["own", "all_subsets", "all_categories"],
            "extra_images": [{"name": "stimuli", "root": str(folder / "stimuli")}],
            "layers": {"resnet50": ["penultimate", "logits", "layer4"], "alexnet": ["features"]},
            "networks": ["trials", "untrained"],
            "checkpoints": [
                {"name": "mine", "architecture": "alexnet", "file": str(folder / "mine.pt")}
            ],
        },
        rdms={"levels": ["category", "image"]},
        recipe={
            "base": "demo",
            "batch_size": 4,
            "architectures": {
                "resnet50": {"input_px": 32, "steps": 2},
                "alexnet": {"input_px": 64, "steps": 2},
            },
        },
    )
    done = run_job(study, cache=folder / "cache")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return folder / "out", done.stdout


def read(root: Path, row: Any) -> tuple[np.ndarray, list[str]]:
    return split_embedding_table(Storage(str(root)).read_table(row["path"]))


def test_every_network_embeds_every_set_at_every_layer(finished: tuple[Path, str]) -> None:
    root, text = finished
    index = pd.read_parquet(root / "embeddings/index.parquet")
    cells = pd.read_parquet(root / "results/cells.parquet")
    trials = set(cells["trial_id"])
    counts = index.groupby(["kind", "dataset", "images"]).size().to_dict()
    num = {"trials": 3 * len(trials), "untrained": 3, "checkpoint": 1}
    expected = {("trials", "d", "own"): num["trials"]}
    for kind, count in num.items():
        expected[kind, "d", "all_subsets"] = expected[kind, "d", "all_categories"] = count
        expected[kind, "stimuli", "all_categories"] = count
    assert counts == expected
    assert set(index.loc[index["kind"] == "trials", "network"]) == trials
    assert all((root / path).exists() for path in index["path"])
    assert len(pd.read_csv(root / "embeddings/index.csv")) == len(index)
    assert not (root / "embeddings/.images").exists()
    own = index[index["layer"].isin(["penultimate", "features"])]
    assert f"embeddings   {own['num_images'].sum():,} of {own['num_images'].sum():,} images" in text
    # The unreadable stimulus is no image to embed; its row in the manifest tells why.
    assert set(index.loc[index["dataset"] == "stimuli", "num_images"]) == {6}


def test_a_trials_own_images_get_the_embedding_that_the_trial_gave_them(
    finished: tuple[Path, str],
) -> None:
    root, _ = finished
    index = pd.read_parquet(root / "embeddings/index.parquet")
    own = index[(index["images"] == "own") & (index["layer"] == "penultimate")]
    assert len(own)
    for row in own.to_dict("records"):
        embeddings, categories = read(root, row)
        path = f"trials/{row['network']}/embeddings.parquet"
        expected, names = split_embedding_table(Storage(str(root)).read_table(path))
        assert categories == names
        np.testing.assert_allclose(embeddings, expected, rtol=1e-5, atol=1e-6)


def test_all_subsets_are_the_categories_of_the_trials_metric(finished: tuple[Path, str]) -> None:
    root, _ = finished
    index = pd.read_parquet(root / "embeddings/index.parquet")
    subsets = pd.read_parquet(root / "subsets.parquet")
    for row in index[index["layer"] == "logits"].to_dict("records"):
        _, categories = read(root, row)
        if row["images"] == "all_subsets":
            assert set(categories) == set(subsets["category"])
        elif row["dataset"] == "d" and row["images"] == "all_categories":
            assert set(categories) == {"ant", "bee", "cat", "dog", "eel", "fox"}
            assert len(categories) == 12


def test_every_network_measures_the_images_of_every_subset(finished: tuple[Path, str]) -> None:
    root, text = finished
    table = pd.read_parquet(root / "results/cross_distances.parquet")
    cells = pd.read_parquet(root / "results/cells.parquet")
    own = cells.rename(columns={"subset": "trained_on"})
    layers = ("penultimate", "logits", "layer4")
    is_other = table["trial_id"].isna()
    counts = table[~is_other].groupby("layer").size().to_dict()
    assert counts == dict.fromkeys(layers, 4 * len(cells))
    keys = ["trained_on", "architecture", "layer"]
    assert table[is_other].groupby(keys).size().to_dict() == {
        **{("untrained", "resnet50", layer): 4 for layer in layers},
        ("checkpoint:mine", "alexnet", "features"): 4,
    }
    trials = cells.set_index("subset")["trial_id"]
    assert list(table["tested_trial_id"]) == list(trials[table["tested_on"]])
    # On the diagonal the same images as in the trial itself, embedded by the same network.
    is_own = (table["trained_on"] == table["tested_on"]) & (table["layer"] == "penultimate")
    joined = table[is_own].merge(own[["trained_on", "metric", "trial_id", "mean_distance"]])
    assert len(joined) == len(cells)
    np.testing.assert_allclose(joined["distance"], joined["mean_distance"], rtol=1e-5)
    subsets = pd.read_parquet(root / "subsets.parquet")
    for row in table.to_dict("records"):
        names = {"untrained": "untrained-resnet50-s0", "checkpoint:mine": "mine"}
        network = names.get(row["trained_on"], row["trial_id"])
        path = f"embeddings/d/all_subsets/{row['layer']}/{network}.parquet"
        vectors, categories = read(root, {"path": path})
        chosen = subsets.loc[subsets["subset"] == row["tested_on"], "category"]
        is_chosen = np.isin(categories, chosen)
        assert row["num_images"] == is_chosen.sum()  # equal counts: all images are compared
        expected = pdist(vectors[is_chosen].astype(float)).mean()
        assert row["distance"] == pytest.approx(expected, rel=1e-6)
    assert len(pd.read_csv(root / "results/cross_distances.csv")) == len(table)
    num_tables = len(list((root / "cross_distances").rglob("*.parquet")))
    assert f"cross        {num_tables} of {num_tables} distance tables in" in text
    for layer in ("layer4", "features"):
        assert (root / f"report/figures/cross_distances_{layer}.svg").exists()


def test_a_checkpoint_gives_what_torchvision_alone_gives(finished: tuple[Path, str]) -> None:
    root, _ = finished
    index = pd.read_parquet(root / "embeddings/index.parquet")
    [row] = index[(index["network"] == "mine") & (index["dataset"] == "stimuli")].to_dict("records")
    embeddings, categories = read(root, row)
    assert categories == ["cup"] * 3 + ["owl"] * 3
    transform = v2.Compose(
        [
            v2.Resize(RECIPES["demo"].compute_stored_px("alexnet")),
            v2.ToDtype(torch.float32, scale=True),
            v2.CenterCrop(round(RECIPES["demo"].compute_stored_px("alexnet") * 7 / 8)),
            v2.Resize((64, 64)),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    files = sorted((root.parent / "stimuli").rglob("[0-9].png"))
    images = torch.stack([transform(decode_image(str(file))) for file in files])
    model = create_model("alexnet", 5, 64, seed=3).eval()
    with torch.inference_mode():
        expected = model.features(images).flatten(1).numpy()
    assert embeddings.shape == expected.shape
    # The short way rounds stored pixels to whole gray levels elsewhere.
    assert np.corrcoef(embeddings.ravel(), expected.ravel())[0, 1] > 0.999
    np.testing.assert_allclose(embeddings.std(), expected.std(), rtol=0.02)


def test_every_embedding_table_has_its_rdms(finished: tuple[Path, str]) -> None:
    root, text = finished
    rdms = pd.read_parquet(root / "rdms/index.parquet")
    keys = ["dataset", "images", "layer", "network"]
    tables = pd.read_parquet(root / "embeddings/index.parquet")[keys]
    trials = pd.DataFrame({"network": pd.read_parquet(root / "results/cells.parquet")["trial_id"]})
    own = trials.drop_duplicates().assign(dataset="d", images="own", layer="penultimate")
    expected = set(pd.concat([tables, own])[keys].itertuples(index=False, name=None))
    for level in ("category", "image"):
        chosen = rdms[rdms["level"] == level][keys]
        assert len(chosen) == len(expected)
        assert set(chosen.itertuples(index=False, name=None)) == expected
    assert len(pd.read_csv(root / "rdms/index.csv")) == len(rdms)
    assert f"rdms         {len(rdms)} of {len(rdms)} RDMs" in text


def test_rdms_are_those_of_the_embeddings(finished: tuple[Path, str]) -> None:
    root, _ = finished
    rdms = pd.read_parquet(root / "rdms/index.parquet")
    chosen = rdms[(rdms["network"] == "mine") & (rdms["dataset"] == "stimuli")]
    embeddings = pd.read_parquet(root / "embeddings/index.parquet")
    [row] = embeddings[
        (embeddings["network"] == "mine") & (embeddings["dataset"] == "stimuli")
    ].to_dict("records")
    vectors, _ = read(root, row)
    for level, path in zip(chosen["level"], chosen["path"], strict=True):
        rdm = read_rdm(Storage(str(root)), path)
        if level == "image":
            assert rdm.names == tuple(
                f"{category}/{number}.png" for category in ("cup", "owl") for number in range(3)
            )
            expected = pdist(vectors)
        else:
            assert rdm.names == ("cup", "owl")
            expected = pdist(vectors.reshape(2, 3, -1).mean(axis=1))
        np.testing.assert_allclose(rdm.dissimilarities, expected, rtol=1e-4)


def test_a_second_run_embeds_nothing_and_a_new_layer_only_itself(
    finished: tuple[Path, str],
) -> None:
    root, _ = finished
    study = root.parent / "out.yaml"
    files = [*(root / "embeddings").rglob("*.parquet"), *(root / "rdms").rglob("*.*")]
    files += [*(root / "cross_distances").rglob("*.parquet"), *(root / "results").iterdir()]
    times = {path: path.stat().st_mtime_ns for path in files}
    again = run_job(study, cache=root.parent / "cache")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "dashboard" not in again.stdout  # Ray was not needed
    assert times == {path: path.stat().st_mtime_ns for path in times}

    content = yaml.safe_load(study.read_text())
    content["embeddings"]["layers"]["alexnet"] = ["features", "avgpool"]
    study.write_text(yaml.safe_dump(content))
    more = run_job(study, "--only", "embeddings", cache=root.parent / "cache")
    assert more.returncode == 0, more.stdout + more.stderr
    found = set((root / "embeddings").rglob("*.parquet"))
    added = found - set(times)
    assert {path.parent.name for path in added} == {"avgpool"}
    index = root / "embeddings/index.parquet"
    assert len(pd.read_parquet(index)) == len(found) - 1
    assert all(path.stat().st_mtime_ns == times[path] for path in times if path != index)


def test_matrices_are_not_made_of_the_embeddings_of_other_subsets(
    finished: tuple[Path, str],
) -> None:
    root, _ = finished
    content = yaml.safe_load((root.parent / "out.yaml").read_text())
    # The trial of avg_high stays as it is, and with it its network; what that embeds does not.
    study = parse_study({**content, "subsets": {"k": 2, "names": ["avg_high"]}})
    with Cluster() as cluster:
        run = Run(study, Storage(str(root)), cluster)
        make_subsets(run)
        with pytest.raises(StudyError, match=r"is of other subsets.* --only embeddings first"):
            make_cross_distances(run)
