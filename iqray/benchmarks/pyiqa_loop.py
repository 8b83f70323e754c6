"""The peer of whole-process benchmarks: pyiqa's own command-line loop, with given weights.

    python -m iqray.benchmarks.pyiqa_loop FOLDER WEIGHTS SCORES.json METRIC [METRIC ...]

Runs `pyiqa.pyiqa_cmd.main` as the command `pyiqa METRIC ... -t FOLDER` does: metric by metric, file
by file, one image a call. Only two things differ: networks get their weights from a folder instead
of a download, and the scores are written as JSON instead of printed.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pyiqa import pyiqa_cmd
from pyiqa.models import inference_model
from torch import nn

from iqray.metrics.networks import load_network
from iqray.metrics.weights import find_weights


def main(folder: str, weights: str, scores: str, *metrics: str) -> None:
    """Score the images of a folder and write `{metric: {path: score}}`."""

    def build_network(options: Mapping[str, Any]) -> nn.Module:
        [metric] = [name for name in metrics if name == str(options["type"]).lower()]
        return load_network(find_weights(weights, metric))

    def write(results: Mapping[str, Mapping[str, float]]) -> None:
        own = {
            metric: {path: score for path, score in rows.items() if path != "mean"}
            for metric, rows in results.items()
        }
        Path(scores).write_text(json.dumps(own), encoding="utf-8")

    inference_model.build_network = build_network
    pyiqa_cmd.pprint = write
    sys.argv = ["pyiqa", *metrics, "-t", folder, "--device", "cpu", "--verbose"]
    with torch.inference_mode():
        pyiqa_cmd.main()


if __name__ == "__main__":
    main(*sys.argv[1:])
