"""The whole study: images to rank tables and a report. Does only what is missing.

    uv run jobs/full_grid.py                                    # the demo
    uv run jobs/full_grid.py --study my_study.yaml              # your own
    ray job submit --working-dir . -- python jobs/full_grid.py --study my_study.yaml

The demo takes 5 to 9 minutes on 2 cores without a GPU and leaves its report in
outputs/demo/report/index.html. Interrupt or kill it at any point; the same command continues.
One job at a time works below a root: a second is refused.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from iqray.cli import EXIT_INCOMPLETE, build_parser, load_study, open_log, run_job
from iqray.cluster import Cluster
from iqray.cost import watch_cost
from iqray.embeddings.network_files import check_networks
from iqray.lease import hold_root
from iqray.plan import describe_plan
from iqray.preflight import check_study
from iqray.run import Run
from iqray.stages.results import count_lost_cells, summarise_run
from iqray.stages.scores import request_scorers
from iqray.stages.sequence import STAGES
from iqray.stages.trials import count_lost_trials, request_trainers

DEMO_STUDY = Path(__file__).parent / "studies" / "demo.yaml"

# What trials that failed have left without a result, by the stage that --only names.
COUNT_LOST: dict[str | None, Callable[[Run], int]] = {
    None: count_lost_cells,
    "trials": count_lost_trials,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stages of a study in order, or one of them, or say what they would do."""
    parser = build_parser(__doc__ or "", DEMO_STUDY)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print cells, distinct trials and what is already done; start nothing",
    )
    parser.add_argument(
        "--only",
        choices=list(STAGES),
        help="run one stage; trials ends with exit code 1 where any has failed",
    )
    arguments = parser.parse_args(argv)

    study, storage = load_study(arguments)
    listed = check_study(study, storage)
    needs_networks = not arguments.dry_run and arguments.only in (None, "embeddings")
    check_networks(study, storage, fetches=needs_networks)
    requests = [request_scorers(study), *([request] for request in request_trainers(study))]
    run = Run(study, storage, Cluster(arguments.address, requests), listed)
    if arguments.dry_run:
        print(describe_plan(run))
        return
    with hold_root(storage), run.cluster:
        log = open_log(storage, "full_grid")
        print(f"study '{study.name}' below {storage.describe('')}; log in {log}")
        with watch_cost(study.name, study.prices, storage):
            for name, stage in STAGES.items():
                if arguments.only in (None, name):
                    stage(run)
        if arguments.only is None:
            print(summarise_run(run))
        if arguments.only in COUNT_LOST and COUNT_LOST[arguments.only](run):
            sys.exit(EXIT_INCOMPLETE)


if __name__ == "__main__":
    run_job(main)
