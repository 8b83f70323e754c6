"""URIs are named without credentials, and a root that cannot be reached is a user's mistake."""

from collections.abc import Callable
from pathlib import Path

import pytest

from iqray.embeddings.network_files import check_networks
from iqray.errors import StudyError
from iqray.filesystems import describe_uri, open_filesystem
from iqray.inputs.image_root import ImageRoot
from iqray.metrics.fetching import fetch_file
from iqray.metrics.weights_manifest import open_directory
from iqray.results.difficulty import read_difficulty
from iqray.storage import Storage
from iqray.study import Study
from iqray.study_file import parse_study
from jobs import check_paper, compare_rdms, full_grid, intervene, report, score

DEMO = str(Path(full_grid.__file__).parent / "studies" / "demo.yaml")

# Jobs that take an output root, with what else they need to get there.
JOBS: dict[str, tuple[Callable[[list[str]], None], list[str]]] = {
    "check_paper": (check_paper.main, []),
    "compare_rdms": (compare_rdms.main, ["--rdm", "subject.csv"]),
    "full_grid": (full_grid.main, []),
    "intervene": (intervene.main, []),
    "report": (report.main, []),
    "score": (score.main, ["--study", DEMO]),
}


@pytest.mark.parametrize(
    ("uri", "path", "shown"),
    [
        ("s3://bucket/out/", "", "s3://bucket/out"),
        ("s3://bucket/out?endpoint_override=h:90", "a/b", "s3://bucket/out/a/b"),
        ("s3://key:secret@bucket/out", "a", "s3://bucket/out/a"),
        ("s3://key:sec/ret@bucket/out", "", "s3://bucket/out"),
        ("s3://key:sec@ret@bucket/out", "", "s3://bucket/out"),
        ("s3://bucket/me@home/out", "", "s3://bucket/me@home/out"),
        ("s3://key@bucket/me@home", "", "s3://bucket/me@home"),
        ("s3://[bucket", "", "s3://[bucket"),
        ("https://user:secret@mirror:8080/x?token=1", "", "https://mirror:8080/x"),
        ("/a/what?/me@home:x", "b", "/a/what?/me@home:x/b"),
    ],
)
def test_a_uri_is_named_without_its_credentials(uri: str, path: str, shown: str) -> None:
    assert describe_uri(uri, path) == shown


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("foo://key:secret@x", "Unrecognized filesystem type"),
        ("s3://key:sec/ret@bucket/out", "Cannot parse URI: 's3://bucket/out'"),
        ("s3://key:secret@bucket/out?no=1", "Unexpected query parameter"),
    ],
)
def test_what_cannot_be_opened_is_told_without_credentials(uri: str, reason: str) -> None:
    opened: list[Callable[[], object]] = [
        lambda: open_filesystem(uri),
        lambda: ImageRoot.parse(uri),
        lambda: open_directory(uri),
    ]
    for attempt in opened:
        with pytest.raises((OSError, StudyError), match=reason) as caught:
            attempt()
        assert "sec" not in str(caught.value)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (
            lambda uri, _: read_difficulty(f"{uri}/hard.csv", "d", {"a"}),
            r"controls.difficulty 'foo://x/hard.csv' is no CSV file .*foo://x\)",
        ),
        (
            lambda uri, folder: check_networks(
                name_checkpoint(folder, f"{uri}/a.pt"), Storage(str(folder))
            ),
            r"checkpoint 'foo://x/a.pt' of 'm' cannot be read \(.*foo://x\)",
        ),
        (
            lambda uri, folder: fetch_file("f", "https://hub/f", uri, folder / "f"),
            r"f cannot be fetched from foo://x/f \(.*foo://x\)",
        ),
        (
            lambda uri, folder: fetch_file(
                "f", "https://hub/f", uri.replace("foo", "http"), folder / "f"
            ),
            "'http://x/f' is no address, or has a user and password",
        ),
        (lambda uri, _: parse_study({"weights": uri}), "weights is 'foo://x'"),
    ],
)
def test_what_a_study_names_is_told_without_credentials(
    tmp_path: Path, use: Callable[[str, Path], object], message: str
) -> None:
    with pytest.raises(StudyError, match=message) as caught:
        use("foo://key:secret@x", tmp_path)
    assert "secret" not in str(caught.value)


def name_checkpoint(folder: Path, file: str) -> Study:
    dataset = {"name": "d", "root": str(folder), "train": "train", "test": "val"}
    return parse_study(
        {
            "name": "s",
            "root": str(folder),
            "datasets": [dataset],
            "recipe": "demo",
            "weights": {"demo": True},
            "embeddings": {
                "images": ["all_categories"],
                "networks": ["untrained"],
                "checkpoints": [{"name": "m", "architecture": "vgg16", "file": file}],
            },
        }
    )


@pytest.mark.parametrize("job", JOBS)
def test_a_root_of_an_unknown_kind_is_a_mistake(job: str) -> None:
    main, arguments = JOBS[job]
    message = r"output root 'foo://x' cannot be read \(Unrecognized filesystem type in URI: foo://x"
    with pytest.raises(StudyError, match=message):
        main(["--root", "foo://key:secret@x", *arguments])
