"""Tell Ray that this spot node is about to be taken away, as soon as its cloud says so.

    python -m iqray.preemption aws
    python -m iqray.preemption gcp

Runs beside Ray on a node, asks the cloud's metadata service, and ends when Ray knows: then Ray
starts nothing new on the node, and trials of engine `ray_train` write a checkpoint
(`iqray.training.checkpoints`). `cluster/aws.yaml` and `cluster/gcp.yaml` start it on every worker;
on a node that is no spot node no notice ever comes.
"""

import argparse
import json
import logging
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from iqray.cli import run_job
from iqray.errors import StudyError

logger = logging.getLogger(__name__)

_TIMEOUT_S = 5  # of the metadata service, which is on the machine itself
_RETRY_S = 1  # when Ray does not take it
_TRY_S = 20.0  # Ray's command waits longer for a head that does not answer than a node may have

# What Compute Engine leaves a spot machine for shutting down, at best ("Spot VMs").
_GCP_NOTICE_S = 30.0

_REASON = "DRAIN_NODE_REASON_PREEMPTION"


@dataclass(frozen=True)
class CloudNotice:
    """How a cloud tells a machine that it will be taken away.

    Attributes:
        url: of the metadata service.
        read: asks the service at a URL for the seconds that are left; none without a notice.
        poll_s: seconds between two questions.
    """

    url: str
    read: Callable[[str], float | None]
    poll_s: float


def read_aws_notice(url: str) -> float | None:
    """Seconds until Amazon EC2 takes this machine away; none without a notice.

    It comes two minutes ahead. Source: "Spot Instance interruption notices" and "Use the Instance
    Metadata Service" (version 2) in the EC2 User Guide.

    Args:
        url: of the metadata service.

    Raises:
        OSError: no answer, or another than the guide's.
    """
    lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    token = _request(f"{url}/latest/api/token", lifetime, "PUT")
    header = {"X-aws-ec2-metadata-token": token}
    try:
        notice = _request(f"{url}/latest/meta-data/spot/instance-action", header)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    try:
        end = datetime.fromisoformat(json.loads(notice)["time"])
    except (ValueError, KeyError) as error:
        raise OSError(f"a notice without a time: {notice!r}") from error
    return max(0.0, (end - datetime.now(UTC)).total_seconds())


def read_gcp_notice(url: str) -> float | None:
    """Seconds until Compute Engine takes this machine away; none without a notice.

    Source: "Spot VMs" and "Predefined metadata keys" (`instance/preempted`) in its documentation.

    Args:
        url: of the metadata service.

    Raises:
        OSError: no answer.
    """
    address = f"{url}/computeMetadata/v1/instance/preempted"
    is_preempted = _request(address, {"Metadata-Flavor": "Google"}).strip() == "TRUE"
    return _GCP_NOTICE_S if is_preempted else None


# Amazon asks to be asked every five seconds; Google leaves less time to lose.
CLOUDS = {
    "aws": CloudNotice("http://169.254.169.254", read_aws_notice, poll_s=5),
    "gcp": CloudNotice("http://metadata.google.internal", read_gcp_notice, poll_s=1),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Wait for a notice, and drain the node."""
    arguments = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    cloud = CLOUDS[arguments.cloud]
    url = arguments.metadata_url or cloud.url
    left_s = wait_for_notice(lambda: cloud.read(url), cloud.poll_s)
    logger.info("this node will be taken away in %.0f s", left_s)
    drain(left_s, arguments.address, arguments.node_id)
    logger.info("Ray knows")


def build_parser() -> argparse.ArgumentParser:
    """Parser of this command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m iqray.preemption",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("cloud", choices=list(CLOUDS), help="whose metadata service to ask")
    parser.add_argument(
        "--metadata-url", metavar="URL", help="of that service (default: where the cloud has it)"
    )
    parser.add_argument(
        "--address", metavar="ADDRESS", help="of Ray's head (default: that of this node's Ray)"
    )
    parser.add_argument("--node-id", metavar="ID", help="node to drain (default: this one)")
    return parser


def wait_for_notice(read: Callable[[], float | None], poll_s: float) -> float:
    """Ask until there is a notice; gives the seconds that are left.

    A service that does not answer is asked again: the notice may still come.

    Args:
        read: asks once; none without a notice.
        poll_s: seconds between two questions.
    """
    was_silent = False
    while True:
        try:
            left_s = read()
            if left_s is not None:
                return left_s
            was_silent = False
        except OSError as error:
            if not was_silent:
                logger.warning("the metadata service does not answer (%s); asking on", error)
            was_silent = True
        time.sleep(poll_s)


def drain(
    left_s: float, address: str | None = None, node_id: str | None = None, try_s: float = _TRY_S
) -> None:
    """Tell Ray that a node goes, again and again while Ray does not take it.

    Args:
        left_s: seconds until the node goes.
        address: of Ray's head; that of this node's Ray if none.
        node_id: of the node; this one if none.
        try_s: after which Ray is asked anew, seconds.

    Raises:
        StudyError: Ray has not taken it in time.
    """
    end_s = time.monotonic() + left_s
    while True:
        remaining_s = max(0, int(end_s - time.monotonic()))
        command = _describe_drain(remaining_s, address, node_id)
        try:
            subprocess.run(command, capture_output=True, check=True, timeout=try_s)  # noqa: S603
        except subprocess.SubprocessError as error:
            if remaining_s == 0:
                raise StudyError(f"Ray has not drained the node in time: {error}") from error
            logger.warning("Ray does not drain the node (%s); asking again", error)
            time.sleep(_RETRY_S)
        else:
            return


def _describe_drain(remaining_s: int, address: str | None, node_id: str | None) -> list[str]:
    """Ray's own command for it, which has the cluster's token from where every process has it."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--reason", _REASON]
    command += ["--reason-message", "the cloud takes this spot node away"]
    command += ["--deadline-remaining-seconds", str(remaining_s)]
    command += ["--address", address] if address else []
    return command + (["--node-id", node_id] if node_id else [])


def _request(url: str, headers: dict[str, str], method: str = "GET") -> str:
    request = urllib.request.Request(url, headers=headers, method=method)  # noqa: S310 (http only)
    # Never through a proxy, which would ask its own machine's service.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=_TIMEOUT_S) as response:
        return str(response.read().decode("utf-8"))


if __name__ == "__main__":
    run_job(main)
