"""The best and the worst half of the training images within every category. Pure.

Categories are the same in both halves and in the whole, so that what differs between models that
are trained on them is not which categories they tell apart.
"""

import pandas as pd
import pyarrow as pa

from iqray.errors import StudyError
from iqray.settings.control import BEST_HALF, WORST_HALF


def split_halves(scores: pd.DataFrame, lower_better: bool) -> dict[str, pa.Table]:
    """Split each category's images by one metric's scores.

    Best is best in quality, whatever orientation the study's subsets have: the highest scores, or
    the lowest where lower scores mean better images. Equal scores are ordered by image_id. Of an
    odd number of images the middle one is in neither half, so that both have equally many.

    Args:
        scores: rows of `schemas.SCORES` with a score, of one dataset and metric.
        lower_better: lower scores mean better images.

    Returns:
        `best_half` and `worst_half`: columns image_id and category, by category and from the best
        image to the worst.

    Raises:
        StudyError: a category has fewer than two images.
    """
    order = ["category", "score", "image_id"]
    ranked = scores.sort_values(order, ascending=[True, lower_better, True])
    groups = ranked.groupby("category")
    place, size = groups.cumcount(), groups["image_id"].transform("size")
    if (size < 2).any():
        category = ranked.loc[size < 2, "category"].iloc[0]
        raise StudyError(
            f"controls.image_halves: category '{category}' of '{ranked['dataset'].iloc[0]}' has "
            f"one training image with a score of {ranked['metric'].iloc[0]}, and two halves need "
            "two; add images, remove the category, or set controls.image_halves to false"
        )
    columns = ["image_id", "category"]
    return {
        name: pa.Table.from_pandas(ranked.loc[is_own, columns], preserve_index=False)
        for name, is_own in (
            (BEST_HALF, place < size // 2),
            (WORST_HALF, place >= size - size // 2),
        )
    }
