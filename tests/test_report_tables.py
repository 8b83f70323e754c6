import pandas as pd
import pytest

from iqray.report.tables import format_value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        (12345, "12,345"),
        (0.5, "0.500"),
        (1.0, "1.000"),
        (1234567.8, "1,234,568"),
        (float("nan"), "–"),
        (None, "–"),
        (pd.NA, "–"),
        ("<b>", "<b>"),
    ],
)
def test_format_value(value, text):
    assert format_value(value) == text
