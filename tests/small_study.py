"""A study small enough to run whole in a test: one dataset, two metrics, one architecture."""

from pathlib import Path
from typing import Any

import yaml

TIMEOUT_S = 240


def write_study(inputs: Path, root: Path, **changes: Any) -> Path:
    study: dict[str, Any] = {
        "name": "small",
        "root": str(root),
        "datasets": [{"name": "d", "root": str(inputs / "images")}],
        "metrics": ["brisque", "cnniqa"],
        "architectures": ["resnet50"],
        "subsets": {"k": 2},
        "recipe": {
            "base": "demo",
            "batch_size": 4,
            "architectures": {"resnet50": {"input_px": 32, "steps": 2}},
        },
        "weights": {"directory": str(inputs / "weights")},
        "scoring": {"shard_size": 8},
        **changes,
    }
    path = root.parent / f"{root.name}.yaml"
    path.write_text(yaml.safe_dump(study))
    return path
