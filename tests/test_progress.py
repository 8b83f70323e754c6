import io

import pytest

from iqray.progress import format_seconds, show_stage


def test_a_stage_is_one_line() -> None:
    stream = io.StringIO()
    with show_stage("scores", 30, "images", stream) as line:
        line.skip(10)
        line(20)
    assert stream.getvalue() == "scores       30 of 30 images in 0 s, 10 there before\n"


def test_a_finished_stage_says_so() -> None:
    stream = io.StringIO()
    with show_stage("scores", 30, "images", stream) as line:
        line.skip(30)
    assert stream.getvalue() == "scores       30 of 30 images, all there before\n"


def test_a_failing_stage_claims_nothing() -> None:
    stream = io.StringIO()
    with pytest.raises(ValueError, match="boom"), show_stage("scores", 30, "images", stream):
        raise ValueError("boom")
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (7500, "2 h 5 min")],
)
def test_durations_read_naturally(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
