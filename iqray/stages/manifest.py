"""Stage `manifest`: list and inspect every image of every dataset, and report equal ones."""

import pyarrow as pa
import pyarrow.csv

from iqray.errors import StudyError
from iqray.identity import hash_content
from iqray.inputs.duplicates import (
    DUPLICATES_VERSION,
    count_duplicates,
    describe_duplicates,
    find_duplicates,
)
from iqray.inputs.manifest import (
    build_manifests,
    get_manifest_path,
    plan_manifest,
)
from iqray.preflight import check_dataset, check_usable
from iqray.progress import show_line, show_stage
from iqray.resources import WorkerRequest
from iqray.run import Run

DUPLICATES_PATH = "manifest/duplicates.parquet"


def make_manifests(run: Run) -> None:
    """List and inspect every image of every dataset."""
    total = sum(listing.num_rows for listing in run.listings.values())
    shard_size = run.study.scoring.shard_size
    plans = []
    with show_stage("manifest", total, "images") as line:
        for dataset in run.study.all_datasets:
            listing = run.listings[dataset.name]
            if dataset.test is not None:  # else the dataset is only scored, or embedded
                check_dataset(run.study, dataset, listing)
            source = run.open_images(dataset)
            if run.is_inspected(dataset.name):
                line.skip(listing.num_rows)
            else:
                plans.append(plan_manifest(dataset.name, source, listing, shard_size))
        if plans:
            size = run.fit_pool(WorkerRequest("manifest", num_cpus=1))
            build_manifests(run.storage, plans, size, lambda written: line(written.num_rows))
            run.record_seconds(line)
    for dataset in run.study.all_datasets:
        if dataset.test is not None:
            check_usable(dataset.name, run.manifests[dataset.name])
    text = describe_duplicates(count_duplicates(_make_duplicates(run)))
    if text:
        show_line("duplicates", text)


def make_duplicates_key(run: Run) -> str:
    """Key of the table of duplicates that the study's manifests give."""
    names = [dataset.name for dataset in run.study.all_datasets]
    keys = {name: run.storage.read_key(get_manifest_path(name)) for name in names}
    return hash_content([DUPLICATES_VERSION, keys])


def _make_duplicates(run: Run) -> pa.Table:
    key = make_duplicates_key(run)
    if run.storage.read_key(DUPLICATES_PATH) == key:
        return run.storage.read_table(DUPLICATES_PATH)
    table = find_duplicates(run.manifests.values())
    text = pa.BufferOutputStream()
    pyarrow.csv.write_csv(table, text)
    run.storage.write_bytes(
        DUPLICATES_PATH.replace(".parquet", ".csv"), text.getvalue().to_pybytes()
    )
    run.storage.write_table(DUPLICATES_PATH, table, key=key)
    return table


def check_duplicates_current(run: Run) -> None:
    """Check that the table of duplicates is there and of the study's images.

    Raises:
        StudyError: it is not.
    """
    run.require(DUPLICATES_PATH, "manifest")
    if run.storage.read_key(DUPLICATES_PATH) != make_duplicates_key(run):
        raise StudyError(
            f"'{run.storage.describe(DUPLICATES_PATH)}' is of other images than the study's; run "
            "--only manifest first, or all stages without --only"
        )
