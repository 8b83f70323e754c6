"""What a configuration of `ray up` must keep to, beyond Ray's own schema.

Each rule raises if it is broken.
"""

from pathlib import PurePosixPath
from typing import Any

import yaml

SECRETS = ("AKIA", "PRIVATE KEY", "secret_access_key", "gcp_credentials", "RAY_AUTH_TOKEN=")


def list_nodes(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The provider's part of each node type."""
    return {name: kind["node_config"] for name, kind in config["available_node_types"].items()}


def check_token(config: dict[str, Any]) -> None:
    """Every process of every node asks for the token, and has it from a mounted file."""
    options = config["docker"]["run_options"]
    assert "--env=RAY_AUTH_MODE=token" in options
    [path] = [option.split("=", 2)[2] for option in options if "RAY_AUTH_TOKEN_PATH=" in option]
    assert list(config["file_mounts"]) == [str(PurePosixPath(path).parent)]
    [check] = config["setup_commands"]
    assert '"$(stat -c %a ~/.iqray ~/.iqray/auth_token | xargs)" = "700 600"' in check


def check_no_secrets(config: dict[str, Any]) -> None:
    """No key and no token stands in the file."""
    text = yaml.safe_dump(config)
    for secret in SECRETS:
        assert secret not in text


def check_dashboard(config: dict[str, Any]) -> None:
    """The dashboard listens on the head's 127.0.0.1; Ray's default is every interface."""
    [start] = [line for line in config["head_start_ray_commands"] if "ray start" in line]
    assert "--dashboard-host=127.0.0.1" in start.split()


def check_image(config: dict[str, Any]) -> None:
    """One image with a tag for all nodes, and nothing installed on top of it."""
    docker = config["docker"]
    assert not {"head_image", "worker_image"} & set(docker)
    _, tag = docker["image"].rsplit(":", 1)
    assert "latest" not in tag
    for key in ("setup_commands", "head_setup_commands", "worker_setup_commands"):
        assert not [command for command in config[key] if "install" in command]


def check_no_way_in(config: dict[str, Any]) -> None:
    """Nodes have no address outside, and SSH goes through the cloud's own proxy."""
    assert config["provider"]["use_internal_ips"] is True
    assert config["auth"]["ssh_proxy_use_node_id"] is True
    assert "0.0.0.0/0" not in yaml.safe_dump(config)


def check_notices(config: dict[str, Any]) -> None:
    """Workers, some of which are spot, turn their cloud's notice into a drained node."""
    cloud = config["provider"]["type"]
    commands = config["worker_start_ray_commands"]
    [place] = [i for i, line in enumerate(commands) if f"-m iqray.preemption {cloud} " in line]
    assert "--fork" in commands[place]  # or the node would never be ready
    assert any("ray start" in line for line in commands[:place])


def check_aws_groups(config: dict[str, Any]) -> None:
    """Every node has a security group of ours: without one Ray makes one with SSH open to all.

    A rule under `provider.security_group` would be added to that default.
    """
    assert "security_group" not in config["provider"]
    for node in list_nodes(config).values():
        assert node["SecurityGroupIds"]


def check_aws_metadata(config: dict[str, Any]) -> None:
    """IMDSv2: instance credentials need a session, and do not leave the machine."""
    for node in list_nodes(config).values():
        assert node["MetadataOptions"]["HttpTokens"] == "required"
        assert node["MetadataOptions"]["HttpPutResponseHopLimit"] == 1


def check_aws_roles(config: dict[str, Any]) -> None:
    """Storage by instance role; only the head's may start machines."""
    nodes = list_nodes(config)
    head = nodes.pop(config["head_node_type"])["IamInstanceProfile"]["Name"]
    assert head not in {node["IamInstanceProfile"]["Name"] for node in nodes.values()}


def check_aws_disks(config: dict[str, Any]) -> None:
    """Disks are encrypted."""
    for node in list_nodes(config).values():
        assert all(disk["Ebs"]["Encrypted"] is True for disk in node["BlockDeviceMappings"])


def check_aws_markets(config: dict[str, Any]) -> None:
    """GPU nodes are spot, the head is not."""
    nodes = list_nodes(config)
    assert nodes["gpu"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert "InstanceMarketOptions" not in nodes[config["head_node_type"]]


def check_gcp_network(config: dict[str, Any]) -> None:
    """Every node is in a network of ours, without an address outside."""
    for node in list_nodes(config).values():
        for interface in node["networkInterfaces"]:
            assert "accessConfigs" not in interface
            assert not interface["subnetwork"].endswith("/default")


def check_gcp_accounts(config: dict[str, Any]) -> None:
    """Storage by service account; only the head's may start machines."""
    nodes = list_nodes(config)
    [head] = nodes.pop(config["head_node_type"])["serviceAccounts"]
    for node in nodes.values():
        [account] = node["serviceAccounts"]
        assert account["email"] != head["email"]


def check_gcp_markets(config: dict[str, Any]) -> None:
    """GPU nodes are spot, the head is not."""
    nodes = list_nodes(config)
    assert nodes["gpu"]["scheduling"]["provisioningModel"] == "SPOT"
    assert "scheduling" not in nodes[config["head_node_type"]]


def check_groups(config: dict[str, Any]) -> None:
    """The head runs no tasks; GPU nodes go from 0 up."""
    kinds = config["available_node_types"]
    assert kinds[config["head_node_type"]]["resources"]["CPU"] == 0
    assert kinds["gpu"]["resources"]["GPU"] > 0
    assert kinds["gpu"]["min_workers"] == 0 < kinds["gpu"]["max_workers"] <= config["max_workers"]
    assert kinds["cpu"]["resources"]["CPU"] > 0
