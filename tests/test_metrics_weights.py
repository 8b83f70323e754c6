import hashlib
import json

import pytest

from iqray.errors import StudyError
from iqray.metrics.weights import NO_WEIGHTS, USER_WEIGHTS, find_weights, write_weights_manifest

NIQE_FILE = "niqe_modelparameters.mat"


@pytest.fixture
def directory(tmp_path):
    (tmp_path / NIQE_FILE).write_bytes(b"a pristine Gaussian")
    return tmp_path


def test_weights_without_a_manifest_are_the_users(directory):
    weights = find_weights(directory, "niqe")
    assert weights.provenance == USER_WEIGHTS
    assert weights.locate() / weights.names[0] == directory / NIQE_FILE
    assert weights.sha256s == (hashlib.sha256(b"a pristine Gaussian").hexdigest(),)


def test_a_manifest_names_the_provenance_and_known_files_only(directory):
    (directory / "notes.txt").write_text("mine")
    write_weights_manifest(directory, "demo weights")
    manifest = json.loads((directory / "weights.json").read_text())
    assert list(manifest["files"]) == [NIQE_FILE]
    assert manifest["files"][NIQE_FILE]["metric"] == "niqe"
    assert find_weights(directory, "niqe").provenance == "demo weights"
    assert sorted(path.name for path in directory.iterdir()) == [
        NIQE_FILE,
        "notes.txt",
        "weights.json",
    ]


def test_a_changed_file_is_refused_with_both_sums(directory):
    write_weights_manifest(directory, "demo weights")
    expected = find_weights(directory, "niqe").sha256s[0]
    (directory / NIQE_FILE).write_bytes(b"a pristine gaussian")
    found = hashlib.sha256(b"a pristine gaussian").hexdigest()
    with pytest.raises(StudyError, match=f"{NIQE_FILE}.*expected {expected}, found {found}"):
        find_weights(directory, "niqe")


def test_a_file_that_the_manifest_does_not_list_is_refused(directory):
    write_weights_manifest(directory, "demo weights")
    (directory / "RN50.pt").write_bytes(b"a network")
    with pytest.raises(StudyError, match=r"does not list RN50\.pt"):
        find_weights(directory, "clipiqa")


def test_a_missing_file_is_named_with_its_source(directory):
    with pytest.raises(StudyError, match=r"'dbcnn' needs DBCNN_\S+ .* download https://\S+/DBCNN_"):
        find_weights(directory, "dbcnn")


@pytest.mark.parametrize("content", ["not json", '{"provenance": "mine"}'])
def test_a_broken_manifest_is_named(directory, content):
    (directory / "weights.json").write_text(content)
    with pytest.raises(StudyError, match=r"weights\.json must hold provenance"):
        find_weights(directory, "niqe")


def test_a_folder_without_weight_files_gets_no_manifest(tmp_path):
    with pytest.raises(StudyError, match="no weight files in"):
        write_weights_manifest(tmp_path, "demo weights")
    assert list(tmp_path.iterdir()) == []


def test_a_metric_without_weights_needs_no_directory(tmp_path):
    weights = find_weights(tmp_path / "nowhere", "piqe")
    assert weights.names == ()
    assert weights.provenance == NO_WEIGHTS
