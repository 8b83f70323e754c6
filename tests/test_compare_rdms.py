"""Networks beside generated subjects: files in, table out, mistakes told."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import rsatoolbox
from scipy.spatial.distance import pdist, squareform

from iqray import schemas
from iqray.errors import StudyError
from iqray.rdms.blocks import iterate_rdm
from iqray.rdms.files import write_rdm
from iqray.rdms.references import read_references
from iqray.storage import Storage
from iqray.tables import write_with_csv
from jobs.compare_rdms import main

NAMES = tuple(f"category_{letter}" for letter in "abcdefghijkl")
PLACES = np.random.default_rng(0).normal(size=(12, 3))  # of the categories, in a brain
NOISE = {"near": 0.3, "far": 100.0}  # how far from it the networks are


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RDMs of two networks, as stage `rdms` leaves them."""
    folder = tmp_path_factory.mktemp("study")
    storage = Storage(str(folder))
    conditions = pa.table(
        {
            "category": pa.array(NAMES),
            "path": pa.nulls(12, pa.string()),
            "image_id": pa.nulls(12, pa.int64()),
            "num_images": pa.repeat(pa.scalar(5, pa.int64()), 12),
        }
    )
    rows = []
    for network, noise in NOISE.items():
        generator = np.random.default_rng(1)
        pieces = iterate_rdm(PLACES + noise * generator.normal(size=(12, 3)), "euclidean")
        path = f"rdms/{network}.parquet"
        write_rdm(storage, path, conditions, pieces, "euclidean", {"network": network}, "k")
        rows.append(
            {
                **dict.fromkeys(schemas.RDMS.names, "x"),
                "network": network,
                "level": "category",
                "measure": "euclidean",
                "num_images": 60,
                "path": path,
            }
        )
    write_with_csv(storage, "rdms/index.parquet", pd.DataFrame(rows), schemas.RDMS, "k")
    return folder


def generate_subjects(count: int = 5) -> np.ndarray:
    """RDMs (count, 12, 12) of people who see nearly the same."""
    generator = np.random.default_rng(2)
    return np.array(
        [
            squareform(pdist(PLACES + 0.5 * generator.normal(size=PLACES.shape)))
            for _ in range(count)
        ]
    )


def write_csv(path: Path, square: np.ndarray, names: tuple[str, ...] = NAMES) -> Path:
    pd.DataFrame(square, index=names, columns=names).to_csv(path)
    return path


def test_the_network_near_the_subjects_is_told_from_the_one_far_from_them(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [
        str(write_csv(tmp_path / f"subject{number}.csv", square))
        for number, square in enumerate(generate_subjects())
    ]
    main(["--root", str(root), "--rdm", *files, "--name", "people", "--draws", "200"])
    table = pd.read_parquet(root / "correspondence/people.parquet").set_index(
        ["network", "comparison"]
    )
    assert len(table) == len(pd.read_csv(root / "correspondence/people.csv")) == 6
    assert (table["num_subjects"] == 5).all()
    assert (table["num_conditions"] == 12).all()
    assert table["low"].le(table["value"]).all()
    assert table["value"].le(table["high"]).all()
    for comparison in ("spearman", "tau_a"):
        near, far = table.loc[("near", comparison)], table.loc[("far", comparison)]
        assert near["low"] > 0
        assert far["low"] < 0 < far["high"]
        assert far["value"] < near["ceiling_low"] < near["ceiling_high"] < 1
    text = capsys.readouterr().out
    assert "correspondence:" in text
    assert "spearman" in text


def test_the_worked_example_of_the_readme(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    index = pd.read_csv(root / "rdms/index.csv")
    rdm = pd.read_parquet(root / index.path[0])
    square = squareform(np.concatenate(rdm.dissimilarities))
    for subject in range(5):
        noise = np.random.default_rng(subject).normal(0, square.std() / 2, square.shape)
        noisy = np.abs(square + noise + noise.T)
        np.fill_diagonal(noisy, 0)
        pd.DataFrame(noisy, rdm.category, rdm.category).to_csv(f"subject{subject}.csv")
    files = [f"subject{subject}.csv" for subject in range(5)]
    main(["--root", str(root), "--name", "generated", "--draws", "100", "--rdm", *files])
    table = pd.read_parquet(root / "correspondence/generated.parquet")
    best = table.sort_values("value").groupby("comparison").last()
    assert set(best["path"]) == {index.path[0]}
    assert (best["value"] > best["ceiling_low"]).all()  # the very RDM that the subjects share


def test_files_of_all_kinds_hold_the_same_subjects(tmp_path: Path) -> None:
    squares = generate_subjects(3)
    csv = read_references(
        [write_csv(tmp_path / f"{index}.csv", square) for index, square in enumerate(squares)]
    )
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n")
    condensed = np.array([squareform(square) for square in squares])
    np.save(tmp_path / "squares.npy", squares)
    np.save(tmp_path / "condensed.npy", condensed)
    rdms = rsatoolbox.rdm.RDMs(squares, pattern_descriptors={"conds": list(NAMES)})
    rdms.save(str(tmp_path / "saved.hdf5"), file_type="hdf5")
    found = [
        read_references([tmp_path / "squares.npy"], tmp_path / "names.txt"),
        read_references([tmp_path / "condensed.npy"], tmp_path / "names.txt"),
        read_references([tmp_path / "saved.hdf5"]),
    ]
    for references in (csv, *found):
        assert references.names == NAMES
        np.testing.assert_allclose(references.dissimilarities, condensed, rtol=1e-12)


def test_subjects_in_another_order_are_brought_to_one(tmp_path: Path) -> None:
    [square] = generate_subjects(1)
    order = np.random.default_rng(3).permutation(12)
    shuffled = tuple(NAMES[index] for index in order)
    first = write_csv(tmp_path / "1.csv", square)
    second = write_csv(tmp_path / "2.csv", square[np.ix_(order, order)], shuffled)
    one, other = read_references([first, second]).dissimilarities
    np.testing.assert_allclose(one, other)
    some = ("category_h", "category_b", "category_k")
    expected = squareform(square[np.ix_([7, 1, 10], [7, 1, 10])])
    np.testing.assert_allclose(read_references([first]).select(some)[0], expected)


def test_iqrays_own_rdm_compared_with_itself_gives_one(root: Path) -> None:
    main(["--root", str(root), "--rdm", str(root / "rdms/near.h5"), "--draws", "20"])
    table = pd.read_parquet(root / "correspondence/near.parquet")
    own = table[table["network"] == "near"]
    assert own["value"].to_list() == pytest.approx([1, 1, 1])
    assert table["ceiling_low"].isna().all()  # one subject


def test_conditions_that_no_rdm_has_are_named(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [square] = generate_subjects(1)
    names = (*NAMES[:10], "ghost", "Category_l")
    file = write_csv(tmp_path / "some.csv", square, names)
    main(["--root", str(root), "--rdm", str(file), "--draws", "20"])
    assert "2 of 12 supplied conditions are in no RDM: 'ghost', 'Category_l'" in (
        capsys.readouterr().out
    )
    strange = write_csv(tmp_path / "strange.csv", square, tuple("abcdefghijkl"))
    with pytest.raises(StudyError, match=r"no RDM has 4 .*'a', 'b', 'c' and 9 more.*'category_a'"):
        main(["--root", str(root), "--rdm", str(strange)])


def damage(square: np.ndarray, what: str) -> np.ndarray:
    square = square.copy()
    if what == "similarities":
        return 1 - square
    square[(0, 1) if what == "asymmetric" else ([0, 1], [1, 0])] = np.nan if what == "gap" else 9
    return square


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("similarities", "diagonal.*similarities.*1 - r"),
        ("asymmetric", "not symmetric"),
        ("gap", "between 'category_a' and 'category_b'"),
    ],
)
def test_files_that_are_no_rdm_say_why(tmp_path: Path, what: str, message: str) -> None:
    [square] = generate_subjects(1)
    with pytest.raises(StudyError, match=message):
        read_references([write_csv(tmp_path / "bad.csv", damage(square, what))])


def test_mistakes_in_names_and_shapes_say_what_to_give(root: Path, tmp_path: Path) -> None:
    [square] = generate_subjects(1)
    np.save(tmp_path / "1.npy", square)
    with pytest.raises(StudyError, match="numbers without names; give --names"):
        read_references([tmp_path / "1.npy"])
    (tmp_path / "names.txt").write_text("a\nb\n")
    with pytest.raises(StudyError, match=r"has 2 conditions; .* at least 3"):
        read_references([tmp_path / "1.npy"], tmp_path / "names.txt")
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    with pytest.raises(StudyError, match="12 x 12 and there are 3 names"):
        read_references([tmp_path / "1.npy"], tmp_path / "names.txt")
    (tmp_path / "latin.txt").write_bytes("k\u00e4fer\n".encode("latin-1"))
    with pytest.raises(StudyError, match="UTF-8"):
        read_references([tmp_path / "1.npy"], tmp_path / "latin.txt")
    (tmp_path / "latin.csv").write_bytes(",k\u00e4fer\nk\u00e4fer,0\n".encode("latin-1"))
    with pytest.raises(StudyError, match=r"latin\.csv' cannot be read as an RDM \('utf-8' codec"):
        read_references([tmp_path / "latin.csv"])
    np.save(tmp_path / "words.npy", np.array([["a", "b", "c"]] * 3))
    with pytest.raises(StudyError, match=r"words\.npy' cannot be read as an RDM"):
        read_references([tmp_path / "words.npy"], tmp_path / "names.txt")
    (tmp_path / "one.csv").write_text(",a,b\n")
    with pytest.raises(StudyError, match="0 conditions"):
        read_references([tmp_path / "one.csv"])
    with pytest.raises(StudyError, match="--draws is 0"):
        main(["--root", str(root), "--rdm", str(tmp_path / "1.npy"), "--draws", "0"])
    twice = write_csv(tmp_path / "twice.csv", square, ("category_a", *NAMES[:11]))
    with pytest.raises(StudyError, match="'category_a' twice"):
        read_references([twice])
    other = write_csv(tmp_path / "other.csv", square, (*NAMES[:11], "moon"))
    with pytest.raises(StudyError, match="differ in 'category_l', 'moon'"):
        read_references([write_csv(tmp_path / "2.csv", square), other])
    with pytest.raises(StudyError, match="no RDM file"):
        read_references([tmp_path / "names.txt"])
    with pytest.raises(StudyError, match="no text descriptor 'word'; choose from category"):
        read_references([root / "rdms/near.h5"], descriptor="word")
    with pytest.raises(StudyError, match=r"rdms\.levels"):
        main(["--root", str(tmp_path), "--rdm", str(other)])
