"""Stage `manifest`: list and inspect every image of every dataset."""

from iqray.manifest import (
    build_manifests,
    is_manifest_current,
    make_manifest_key,
    plan_manifest,
)
from iqray.pools import PoolSize
from iqray.preflight import check_dataset, check_usable
from iqray.progress import show_stage
from iqray.resources import WorkerRequest, fit_count
from iqray.run import Run


def make_manifests(run: Run) -> None:
    """List and inspect every image of every dataset."""
    total = sum(listing.num_rows for listing in run.listings.values())
    plans = []
    with show_stage("manifest", total, "images") as line:
        for dataset in run.study.datasets:
            listing = run.listings[dataset.name]
            if dataset.test is not None:  # else the dataset is only scored
                check_dataset(run.study, dataset, listing)
            source = run.open_images(dataset)
            if is_manifest_current(run.storage, dataset.name, make_manifest_key(source, listing)):
                line.skip(listing.num_rows)
            else:
                plans.append(plan_manifest(dataset.name, source, listing))
        if plans:
            most = fit_count(WorkerRequest("manifest", num_cpus=1), run.cluster.connect())
            build_manifests(
                run.storage, plans, PoolSize(1, most), lambda written: line(written.num_rows)
            )
            run.record_seconds(line)
    for dataset in run.study.datasets:
        if dataset.test is not None:
            check_usable(dataset.name, run.manifests[dataset.name])
