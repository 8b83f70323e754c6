"""The stages of a study, in order. Each reads finished tables and makes only what is missing."""

from collections.abc import Callable

from iqray.run import Run
from iqray.stages.cross_distances import make_cross_distances
from iqray.stages.demo import make_demo
from iqray.stages.embeddings import make_embeddings
from iqray.stages.images import inspect_and_score
from iqray.stages.manifest import make_manifests
from iqray.stages.rdms import make_rdms
from iqray.stages.report import make_report
from iqray.stages.results import make_results
from iqray.stages.scores import make_scores
from iqray.stages.statistics import make_statistics
from iqray.stages.subsets import make_subsets
from iqray.stages.trials import train_grid

STAGES: dict[str, Callable[[Run], None]] = {
    "demo": make_demo,
    "images": inspect_and_score,
    "manifest": make_manifests,
    "scores": make_scores,
    "subsets": make_subsets,
    "trials": train_grid,
    "embeddings": make_embeddings,
    "cross": make_cross_distances,
    "rdms": make_rdms,
    "results": make_results,
    "statistics": make_statistics,
    "report": make_report,
}
