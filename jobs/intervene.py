"""Change the images of a subset and train again: does quality cause what ranks show?

    uv run jobs/intervene.py --study my_study.yaml
    ray job submit --working-dir . -- python jobs/intervene.py --study my_study.yaml

The study names `interventions`. Its subsets are made where jobs/full_grid.py has not; then, for
each intervention, images are degraded, restored or chosen, written without loss, scored by every
metric, and trained on as in the grid, with the same categories. Test images stay untouched unless
the study has them changed; then they are scored too, changed and untouched. Leaves effects.csv and
measured_scores.csv in interventions/<dataset>-<metric>-<subset>/. Interrupt or kill it at any
point; the same command continues. One job at a time works below a root: a second is refused. Each
changed subset costs as much as a cell of the grid, for each architecture and seed.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from iqray.cli import EXIT_INCOMPLETE, build_parser, load_study, open_log, run_job
from iqray.cluster import Cluster
from iqray.cost import watch_cost
from iqray.lease import hold_root
from iqray.preflight import check_study
from iqray.run import Run
from iqray.stages.interventions import check_interventions, intervene
from iqray.stages.scores import request_scorers
from iqray.stages.sequence import STAGES
from iqray.stages.trials import request_trainers

EXAMPLE_STUDY = Path(__file__).parent / "studies" / "example.yaml"


def main(argv: Sequence[str] | None = None) -> None:
    """Make every intervention of a study, and print measured scores and effects."""
    arguments = build_parser(__doc__ or "", EXAMPLE_STUDY).parse_args(argv)
    study, storage = load_study(arguments)
    check_interventions(study)
    listed = check_study(study, storage)
    requests = [request_scorers(study), *([request] for request in request_trainers(study))]
    num_lost = 0
    with hold_root(storage), Cluster(arguments.address, requests) as cluster:
        run = Run(study, storage, cluster, listed)
        print(f"study '{study.name}'; log in {open_log(storage, 'intervene')}")
        with watch_cost(study.name, study.prices, storage):
            for name in ("demo", "images", "manifest", "scores", "subsets"):
                STAGES[name](run)
            for intervention in study.interventions:
                effects, scores = intervene(run, intervention)
                num_lost += int(effects["status"].isin(["failed", "missing"]).sum())
                shown = ["variant", "split", "scored_by", "average", "range"]
                shown += ["average_difference", "range_difference"]
                print(f"\n{scores[shown].round(3).to_string(index=False)}")
                shown = ["variant", "architecture", "seed", "top1", "top1_difference", "status"]
                print(f"\n{effects[shown].round(4).to_string(index=False)}\n")
    print(f"effects: {storage.describe('interventions')}")
    if num_lost:
        sys.exit(EXIT_INCOMPLETE)


if __name__ == "__main__":
    run_job(main)
