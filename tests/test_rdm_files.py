"""An RDM's files: rsatoolbox and pandas read back what was computed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import rsatoolbox
from scipy.spatial.distance import pdist, squareform

from iqray.rdms.blocks import iterate_rdm
from iqray.rdms.files import read_rdm, write_rdm
from iqray.storage import Storage

VECTORS = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
MANY = np.random.default_rng(1).normal(size=(2500, 2)).astype(np.float32)  # in several batches
EXPECTED = pdist(VECTORS.astype(np.float64))


def describe_conditions(letters: str = "abcdefg", by_image: bool = True) -> pa.Table:
    count = len(letters)
    paths = pa.array([f"val/{letter}/1.jpg" for letter in letters])
    return pa.table(
        {
            "category": pa.array(list(letters)),
            "path": paths if by_image else pa.nulls(count, pa.string()),
            "image_id": pa.array(range(count)) if by_image else pa.nulls(count, pa.int64()),
            "num_images": pa.repeat(pa.scalar(1, pa.int64()), count),
        }
    )


def write(root: Path, conditions: pa.Table, vectors: np.ndarray = VECTORS) -> Storage:
    storage = Storage(str(root))
    pieces = iterate_rdm(vectors, "euclidean")
    descriptors = {"network": "net-1", "layer": "penultimate"}
    write_rdm(storage, "rdms/net.parquet", conditions, pieces, "euclidean", descriptors, "k")
    return storage


@pytest.mark.parametrize("vectors", [VECTORS, MANY])
def test_parquet_lists_joined_are_the_condensed_rdm(tmp_path: Path, vectors: np.ndarray) -> None:
    count = len(vectors)
    letters = "".join(chr(ord("a") + number) for number in range(count))
    storage = write(tmp_path, describe_conditions(letters), vectors)
    frame = pd.read_parquet(tmp_path / "rdms/net.parquet")
    expected = pdist(vectors.astype(np.float64))
    np.testing.assert_allclose(np.concatenate(frame["dissimilarities"]), expected, rtol=1e-5)
    assert [len(row) for row in frame["dissimilarities"]] == list(range(count - 1, -1, -1))
    assert set(frame["measure"]) == {"euclidean"}
    assert storage.read_key("rdms/net.parquet") == "k"


@pytest.mark.parametrize("by_image", [True, False])
def test_reading_gives_names_and_numbers_back(tmp_path: Path, by_image: bool) -> None:
    rdm = read_rdm(write(tmp_path, describe_conditions(by_image=by_image)), "rdms/net.parquet")
    names = [f"val/{letter}/1.jpg" if by_image else letter for letter in "abcdefg"]
    assert rdm.names == tuple(names)
    assert rdm.measure == "euclidean"
    np.testing.assert_allclose(rdm.dissimilarities, EXPECTED, rtol=1e-6)


def test_rsatoolbox_loads_numbers_measure_and_descriptors(tmp_path: Path) -> None:
    write(tmp_path, describe_conditions())
    loaded = rsatoolbox.rdm.load_rdm(str(tmp_path / "rdms/net.h5"))
    assert (loaded.n_rdm, loaded.n_cond) == (1, 7)
    assert loaded.dissimilarity_measure == "euclidean"
    assert loaded.descriptors["network"] == "net-1"
    np.testing.assert_allclose(loaded.get_matrices()[0], squareform(EXPECTED), rtol=1e-6)
    assert list(loaded.pattern_descriptors["category"]) == list("abcdefg")
    assert list(loaded.pattern_descriptors["image_id"]) == list(range(7))
    # What it does with its own RDMs, it does with ours.
    own = rsatoolbox.rdm.calc_rdm(rsatoolbox.data.Dataset(VECTORS), method="euclidean")
    [[similarity]] = rsatoolbox.rdm.compare(loaded, own, method="spearman")
    assert similarity == pytest.approx(1)
    part = loaded.subset_pattern("category", ["b", "e", "f"])
    np.testing.assert_allclose(part.dissimilarities[0], pdist(VECTORS[[1, 4, 5]]), rtol=1e-6)


def test_rsatoolbox_gives_names_beyond_ascii_as_utf8(tmp_path: Path) -> None:
    write(tmp_path, describe_conditions("äbcdefg"))
    loaded = rsatoolbox.rdm.load_rdm(str(tmp_path / "rdms/net.h5"))
    assert loaded.pattern_descriptors["category"][0].decode() == "ä"
    assert len(loaded.pattern_descriptors["category"]) == 7
