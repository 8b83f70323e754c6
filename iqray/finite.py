"""Numbers for JSON and for tables, which have nulls and neither NaN nor infinity."""

import math


def drop_non_finite(value: float | None) -> float | None:
    """The number as it is; none where there is none, or it is not finite."""
    return value if value is not None and math.isfinite(value) else None
