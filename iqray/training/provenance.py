"""What a trial ran on: the code's version and commit, the machine, and packages.

Reads the working copy that the package is imported from, where it is one.
"""

import os
import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import iqray

_PACKAGE = Path(iqray.__file__).parent


def describe_code(package: Path = _PACKAGE) -> dict[str, Any]:
    """Version of iqray and, of a git working copy, its commit.

    Args:
        package: folder of the package's modules.

    Returns:
        version: of the package. commit: 40 hexadecimal digits, or none where the package is not
        imported from a working copy. is_modified: whether tracked files differ from the commit.
    """
    described: dict[str, Any] = {
        "version": iqray.__version__,
        "commit": None,
        "is_modified": None,
    }
    # A package installed into an environment inside some other working copy is not tracked there.
    if _ask_git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return described
    described["commit"] = _ask_git(package, "rev-parse", "HEAD")
    described["is_modified"] = bool(_ask_git(package, "status", "--porcelain", "-uno"))
    return described


def describe_machine(device: str, num_threads: int) -> dict[str, Any]:
    """This process's hardware, Python and packages, as JSON types.

    Args:
        device: torch's name of what is computed on.
        num_threads: of torch on the CPU.
    """
    import torch

    packages = ("ray", "torch", "torchvision", "numpy", "pillow", "pyarrow", "safetensors")
    hardware: dict[str, Any] = {
        "device": device,
        "machine": platform.machine(),
        "cpu": _read_cpu_name(),
        "num_cpus": os.cpu_count(),
        "num_threads": num_threads,
    }
    if device == "cuda":
        hardware["gpu"] = torch.cuda.get_device_name()
        hardware["cuda"] = torch.version.cuda
        hardware["cudnn"] = torch.backends.cudnn.version()
    return {
        "hardware": hardware,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in packages} | {"torch": torch.__version__},
    }


def _ask_git(folder: Path, *arguments: str) -> str | None:
    """What git prints; none where it is not installed or refuses."""
    git = shutil.which("git")
    if git is None:
        return None
    asked = subprocess.run(  # noqa: S603  fixed arguments
        [git, "-C", str(folder), *arguments], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() if asked.returncode == 0 else None


def _read_cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
