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
    total = sum(len(listing) for listing in run.listings.values())
    plans = []
    with show_stage("manifest", total, "images") as line:
        for dataset in run.study.datasets:
            listing = run.listings[dataset.name]
            check_dataset(run.study, dataset, listing)
            root = run.locate_images(dataset)
            if is_manifest_current(run.storage, dataset.name, make_manifest_key(root, listing)):
                line.skip(len(listing))
            else:
                plans.append(plan_manifest(dataset.name, root, listing))
        if plans:
            most = fit_count(WorkerRequest("manifest", num_cpus=1), run.cluster.connect())
            build_manifests(
                run.storage, plans, PoolSize(1, most), lambda written: line(written.num_rows)
            )
            run.record_seconds(line)
    for name, manifest in run.manifests.items():
        check_usable(name, manifest)
