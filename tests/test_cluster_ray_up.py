"""`cluster/aws.yaml`, `cluster/gcp.yaml`: Ray's own checks, and rules that broken copies fail."""

from collections.abc import Callable
from typing import Any

import jsonschema
import pytest

from tests import ray_up_rules as rules
from tests.cluster_files import REMOVED, change, read_ray_up

NAMES = ("aws.yaml", "gcp.yaml")

Rule = Callable[[dict[str, Any]], None]
Broken = tuple[Rule, tuple[Any, ...], Any]

HEAD, GPU = ("available_node_types", "head"), ("available_node_types", "gpu")
CPU_NODE = ("available_node_types", "cpu", "node_config")

# A rule, and what breaks it: a place in the file with another value.
BROKEN: list[Broken] = [
    (rules.check_token, ("docker", "run_options", 1), "--env=RAY_AUTH_MODE=disabled"),
    (rules.check_token, ("docker", "run_options"), []),
    (rules.check_token, ("file_mounts",), {"/home/ray/other": "~/.iqray"}),
    (rules.check_token, ("setup_commands",), ["true"]),
    (rules.check_no_secrets, ("docker", "run_options", 1), "--env=RAY_AUTH_TOKEN=6d5f"),
    (rules.check_no_secrets, ("head_setup_commands",), ["export AWS_KEY=AKIA0123456789ABCDEF"]),
    (rules.check_dashboard, ("head_start_ray_commands", 1), "ray start --head"),
    (
        rules.check_dashboard,
        ("head_start_ray_commands", 1),
        "ray start --head --dashboard-host=0.0.0.0",
    ),
    (rules.check_image, ("docker", "image"), "registry.example.com/iqray:latest"),
    (rules.check_image, ("docker", "image"), "iqray"),
    (rules.check_image, ("docker", "worker_image"), "rayproject/ray:2.9.0"),
    (rules.check_image, ("setup_commands",), REMOVED),  # Ray's default: a nightly wheel
    (rules.check_image, ("head_setup_commands",), REMOVED),
    (rules.check_no_way_in, ("provider", "use_internal_ips"), REMOVED),
    (rules.check_no_way_in, ("auth", "ssh_proxy_use_node_id"), False),
    (rules.check_notices, ("worker_start_ray_commands", 2), "true"),
    (rules.check_notices, ("worker_start_ray_commands", 2), "python -m iqray.preemption aws "),
    (rules.check_notices, ("worker_start_ray_commands", 2), "python -m iqray.preemption gcp "),
    (rules.check_notices, ("provider", "type"), "azure"),
    (rules.check_groups, (*HEAD, "resources"), {"CPU": 4}),
    (rules.check_groups, (*GPU, "min_workers"), 1),
    (rules.check_groups, (*GPU, "max_workers"), 100),
]
BROKEN_AWS: list[Broken] = [
    (rules.check_no_way_in, ("provider", "x"), {"IpRanges": [{"CidrIp": "0.0.0.0/0"}]}),
    (rules.check_aws_groups, (*HEAD, "node_config", "SecurityGroupIds"), REMOVED),
    (rules.check_aws_groups, (*CPU_NODE, "SecurityGroupIds"), []),
    (rules.check_aws_groups, ("provider", "security_group"), {"IpPermissions": []}),
    (rules.check_aws_metadata, (*CPU_NODE, "MetadataOptions"), REMOVED),
    (rules.check_aws_metadata, (*CPU_NODE, "MetadataOptions", "HttpTokens"), "optional"),
    (rules.check_aws_metadata, (*CPU_NODE, "MetadataOptions", "HttpPutResponseHopLimit"), 2),
    (rules.check_aws_roles, (*CPU_NODE, "IamInstanceProfile", "Name"), "iqray-head"),
    (rules.check_aws_roles, (*CPU_NODE, "IamInstanceProfile"), REMOVED),
    (rules.check_aws_disks, (*CPU_NODE, "BlockDeviceMappings", 0, "Ebs", "Encrypted"), False),
    (rules.check_aws_markets, (*GPU, "node_config", "InstanceMarketOptions"), REMOVED),
    (
        rules.check_aws_markets,
        (*HEAD, "node_config", "InstanceMarketOptions"),
        {"MarketType": "spot"},
    ),
]
BROKEN_GCP: list[Broken] = [
    (rules.check_gcp_network, (*CPU_NODE, "networkInterfaces", 0, "accessConfigs"), [{}]),
    (rules.check_gcp_network, (*CPU_NODE, "networkInterfaces", 0, "subnetwork"), "x/default"),
    (rules.check_gcp_network, (*CPU_NODE, "networkInterfaces"), REMOVED),
    (
        rules.check_gcp_accounts,
        (*CPU_NODE, "serviceAccounts", 0, "email"),
        "iqray-head@your-project.iam.gserviceaccount.com",
    ),
    (rules.check_gcp_accounts, (*CPU_NODE, "serviceAccounts"), REMOVED),
    (rules.check_gcp_markets, (*GPU, "node_config", "scheduling"), REMOVED),
    (
        rules.check_gcp_markets,
        (*HEAD, "node_config", "scheduling"),
        {"provisioningModel": "SPOT"},
    ),
]
CASES = [(name, *broken) for name in NAMES for broken in BROKEN]
CASES += [("aws.yaml", *broken) for broken in BROKEN_AWS]
CASES += [("gcp.yaml", *broken) for broken in BROKEN_GCP]


def prepare(config: dict[str, Any]) -> dict[str, Any]:
    """As `ray up` does: with Ray's defaults for what is left out."""
    from ray.autoscaler._private.util import prepare_config

    return prepare_config(config)


@pytest.mark.parametrize("name", NAMES)
def test_ray_accepts_the_configuration(name: str) -> None:
    from ray.autoscaler._private.util import validate_config

    validate_config(prepare(read_ray_up(name)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("path", [("max_workrs",), ("docker", "imag"), (*GPU, "min_worker")])
def test_ray_refuses_unknown_keys(name: str, path: tuple[str, ...]) -> None:
    from ray.autoscaler._private.util import validate_config

    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare(change(read_ray_up(name), path, 1)))


@pytest.mark.parametrize(("name", "rule"), sorted({case[:2] for case in CASES}, key=str))
def test_rules_hold(name: str, rule: Rule) -> None:
    rule(prepare(read_ray_up(name)))


@pytest.mark.parametrize(("name", "rule", "path", "value"), CASES)
def test_broken_copies_fail(name: str, rule: Rule, path: tuple[Any, ...], value: Any) -> None:
    broken = prepare(change(read_ray_up(name), path, value))
    with pytest.raises((AssertionError, KeyError, ValueError)):
        rule(broken)


def test_every_rule_is_used() -> None:
    checks = {value for name, value in vars(rules).items() if name.startswith("check_")}
    assert checks == {case[1] for case in CASES}
