from collections.abc import Iterator

import pytest

from iqray.errors import StudyError
from iqray.preemption import CLOUDS, drain, main, wait_for_notice
from tests.local_server import serving
from tests.metadata_server import MetadataServer


@pytest.fixture
def metadata() -> Iterator[MetadataServer]:
    with serving(MetadataServer()) as server:
        yield server


@pytest.mark.parametrize(("cloud", "left_s", "found_s"), [("aws", 100, 100), ("gcp", 7, 30)])
def test_a_notice_tells_how_long_the_machine_stays(
    metadata: MetadataServer, cloud: str, left_s: float, found_s: float
) -> None:
    assert CLOUDS[cloud].read(metadata.url) is None
    metadata.left_s = left_s
    # Amazon's times are whole seconds.
    assert CLOUDS[cloud].read(metadata.url) == pytest.approx(found_s, abs=10)


def test_a_machine_whose_time_is_over_has_no_time_left(metadata: MetadataServer) -> None:
    metadata.left_s = -1000
    assert CLOUDS["aws"].read(metadata.url) == 0


@pytest.mark.parametrize("cloud", list(CLOUDS))
def test_a_service_that_fails_is_asked_again(metadata: MetadataServer, cloud: str) -> None:
    metadata.num_failures = 2
    with pytest.raises(OSError, match="500"):
        CLOUDS[cloud].read(metadata.url)
    metadata.left_s = 60
    assert wait_for_notice(lambda: CLOUDS[cloud].read(metadata.url), poll_s=0) > 20
    assert metadata.num_questions == 3


def test_no_notice_is_no_reason_to_end() -> None:
    answers = iter([None, None, 12.0])
    assert wait_for_notice(lambda: next(answers), poll_s=0) == 12
    assert next(answers, None) is None


def test_a_proxy_is_never_asked(metadata: MetadataServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    metadata.left_s = 60
    assert CLOUDS["gcp"].read(metadata.url) == 30


def test_a_ray_that_is_not_there_is_an_error_when_the_time_is_up() -> None:
    with pytest.raises(StudyError, match="not drained the node in time"):
        drain(0, address="127.0.0.1:9", node_id="ab" * 28, try_s=0.5)


def test_unknown_clouds_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["azure"])
    assert ended.value.code == 2
    assert "aws" in capsys.readouterr().err
