import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from iqray.errors import StudyError
from iqray.metrics import published
from iqray.metrics.fetching import fetch_file
from iqray.study import PAPER_METRICS
from tests.local_server import serving
from tests.weight_server import WeightServer

NAME = "niqe_modelparameters.mat"
CONTENT = b"a pristine Gaussian" * 5000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server() -> Iterator[WeightServer]:
    with serving(WeightServer()) as server:
        server.files[NAME] = CONTENT
        yield server


@pytest.fixture(autouse=True)
def pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(published._SHA256S, NAME, SHA256)


def fetch(server: WeightServer, target: Path, name: str = NAME, source: str | None = None) -> None:
    fetch_file(name, f"{server.url}/{name}", source, target)


def assert_nothing_but(folder: Path, *names: str) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_a_file_comes_whole_and_once(server: WeightServer, tmp_path: Path) -> None:
    for _ in range(2):
        fetch(server, tmp_path / "deep" / NAME)
    assert (tmp_path / "deep" / NAME).read_bytes() == CONTENT
    assert server.requests[NAME] == 1
    assert_nothing_but(tmp_path / "deep", NAME)


def test_half_a_file_is_none(server: WeightServer, tmp_path: Path) -> None:
    server.cut.add(NAME)
    with pytest.raises(StudyError, match=rf"{NAME}.*sent 47,500 of 95,000 bytes.*--source"):
        fetch(server, tmp_path / NAME)
    assert_nothing_but(tmp_path)


def test_a_server_that_is_gone_is_named_with_the_way_out(
    server: WeightServer, tmp_path: Path
) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(StudyError, match=rf"{NAME} cannot be fetched from {server.url}/.*refused"):
        fetch(server, tmp_path / NAME)
    assert_nothing_but(tmp_path)


def test_a_file_that_the_server_lacks_is_named(server: WeightServer, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"other\.mat cannot be fetched .*404"):
        fetch(server, tmp_path / "other.mat", name="other.mat")


def test_a_wrong_sum_names_file_expected_and_found(server: WeightServer, tmp_path: Path) -> None:
    server.files[NAME] = b"something else"
    found = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(StudyError, match=rf"{NAME} has a wrong .*expected {SHA256}, found {found}"):
        fetch(server, tmp_path / NAME)
    assert_nothing_but(tmp_path)


def test_eight_digits_in_a_name_are_the_start_of_the_sum(
    server: WeightServer, tmp_path: Path
) -> None:
    right = f"net-{SHA256[:8]}.pth"
    server.files |= {right: CONTENT, "net-0123abcd.pth": CONTENT}
    fetch(server, tmp_path / right, name=right)
    with pytest.raises(StudyError, match=rf"expected 0123abcd\.\.\. .* found {SHA256}"):
        fetch(server, tmp_path / "net-0123abcd.pth", name="net-0123abcd.pth")
    assert_nothing_but(tmp_path, right)


def test_a_sum_that_the_hub_names_must_be_the_files(server: WeightServer, tmp_path: Path) -> None:
    server.files["net.mat"] = CONTENT
    for named in (SHA256, "0123456789" * 4):  # a large file's; a small file's, of another kind
        server.named_sums["net.mat"] = named
        fetch(server, tmp_path / named, name="net.mat")
    server.named_sums["net.mat"] = "0" * 64
    with pytest.raises(StudyError, match=rf"net\.mat .*expected 0{{64}}, found {SHA256}"):
        fetch(server, tmp_path / "net.mat", name="net.mat")
    assert_nothing_but(tmp_path, SHA256, "0123456789" * 4)


def test_a_folder_is_looked_through_at_any_depth(server: WeightServer, tmp_path: Path) -> None:
    cached = tmp_path / "cache" / "torch" / "hub" / NAME
    cached.parent.mkdir(parents=True)
    cached.write_bytes(CONTENT)
    for number, source in enumerate((tmp_path / "cache", cached.parent.as_uri())):
        fetch(server, tmp_path / str(number), source=str(source))
        assert (tmp_path / str(number)).read_bytes() == CONTENT
    assert server.requests[NAME] == 0
    with pytest.raises(StudyError, match=rf"gone\.mat is not in .*download {server.url}/gone\.mat"):
        fetch(server, tmp_path / "gone", name="gone.mat", source=str(tmp_path / "cache"))


def test_sums_of_the_papers_files_are_known_where_they_are_published() -> None:
    files = [file for metric in PAPER_METRICS for file in published.list_published_files(metric)]
    digits = {file.name: len(published.find_published_sum(file.name)) for file in files}
    del digits[NAME]  # pinned by these tests only
    assert digits.pop("RN50.pt") == 64
    assert digits.pop("brisque_svm_weights.pth") == 0
    assert set(digits.values()) == {8}
