"""What Prometheus would read on the metrics port of this machine's one Ray node."""

import math
import time
import urllib.request

# Processes send their meters to the node every few seconds.
TIMEOUT_S = 60


def read_lines() -> list[str]:
    """Every sample that the node exports, as text."""
    import ray

    [node] = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode().splitlines()


def wait_for_lines(name: str, *parts: str) -> list[str]:
    """Samples of a metric whose line has all the parts, as soon as there are any."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        lines = [line for line in read_lines() if line.startswith(name + "{")]
        lines = [line for line in lines if all(part in line for part in parts)]
        if lines:
            return lines
        assert time.monotonic() < deadline, f"{name} with {parts} is not exported"
        time.sleep(1)


def wait_for_value(value: float, name: str, *parts: str) -> None:
    """Until the one sample that has all the parts has a value."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        [line] = wait_for_lines(name, *parts)
        if math.isclose(read_value(line), value):
            return
        assert time.monotonic() < deadline, f"{line} does not become {value}"
        time.sleep(1)


def read_value(line: str) -> float:
    """The number at a sample's end."""
    return float(line.split()[-1])
