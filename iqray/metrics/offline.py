"""Keeps a process off the network by the variables that the hubs' libraries honour."""

import os
import sys

# huggingface_hub, which timm and pyiqa use, and transformers.
OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def go_offline() -> None:
    """Forbid downloads from hubs for the rest of this process."""
    for name in OFFLINE_VARIABLES:
        os.environ[name] = "1"
    # It reads the environment when it is imported.
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None:
        constants.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
