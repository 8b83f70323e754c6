"""Stage `demo`: generate the demo's images and fit its weights, where the study asks for them."""

from pathlib import Path

from iqray.metrics.registry import find_metric
from iqray.metrics.weights import write_weights_manifest
from iqray.progress import show_stage
from iqray.results.cells import DEMO_WEIGHTS
from iqray.run import Run
from iqray.study import PAPER_METRICS


def make_demo(run: Run) -> None:
    """Generate images below `<root>/data` and weights below `<root>/weights`."""
    _make_images(run)
    if run.study.weights.demo:
        _make_weights(run)


def _make_images(run: Run) -> None:
    demos = [dataset for dataset in run.study.datasets if dataset.demo]
    if not demos:
        return
    from iqray.demo.images import generate_dataset

    with show_stage("demo images", len(demos), "datasets") as line:
        for dataset in demos:
            assert dataset.demo is not None
            folder = run.storage.get_local_path(f"data/{dataset.name}")
            was_there = folder.is_dir()
            generate_dataset(folder, dataset.demo)  # returns at once when it is there
            line.skip(1) if was_there else line(1)
        run.record_seconds(line)


def list_missing_weights(run: Run) -> list[str]:
    """Metrics whose demo weights are still to be fitted; none where the study has its own."""
    folder = Path(run.locate_weights())
    return [
        metric
        for metric in _list_fitted(run)
        if not all((folder / name).exists() for name in find_metric(metric).weight_files)
    ]


def _list_fitted(run: Run) -> list[str]:
    if not run.study.weights.demo:
        return []
    return [metric for metric in run.study.metrics if metric in PAPER_METRICS]


def _make_weights(run: Run) -> None:
    """Fit each metric's file in a task of its own; the manifest is written last."""
    folder = Path(run.locate_weights())
    metrics, missing = _list_fitted(run), list_missing_weights(run)
    with show_stage("demo weights", len(metrics), "metrics") as line:
        line.skip(len(metrics) - len(missing))
        if not metrics or (not missing and run.storage.exists("weights/weights.json")):
            return
        run.cluster.connect()
        import ray

        fit = ray.remote(num_cpus=1)(_fit)
        waiting = [fit.options(name=f"Fit_{metric}").remote(metric, folder) for metric in missing]
        while waiting:
            finished, waiting = ray.wait(waiting)
            ray.get(finished)
            line(len(finished))
        write_weights_manifest(folder, DEMO_WEIGHTS)
        run.record_seconds(line)


def _fit(metric: str, folder: Path) -> None:
    import torch

    from iqray.demo.weights import FITS

    torch.set_num_threads(1)
    FITS[metric](folder, 0)
