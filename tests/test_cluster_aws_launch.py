"""`cluster/aws.yaml` as Ray's own AWS provider carries it out, on an EC2 that moto keeps in memory.

Ray's bootstrap fills in what the file leaves open, and botocore refuses fields that EC2 lacks.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ParamValidationError
from moto import mock_aws

from tests.cluster_files import REMOVED, change, read_ray_up

KINDS = ("head", "cpu", "gpu")


class Account:
    """An AWS account with what cluster/README.md wants to exist."""

    def __init__(self) -> None:
        self.ec2 = boto3.resource("ec2", "us-east-1")
        network = self.ec2.create_vpc(CidrBlock="10.0.0.0/16")
        self.subnet = self.ec2.create_subnet(VpcId=network.id, CidrBlock="10.0.0.0/20").id
        self.group = self.ec2.create_security_group(
            GroupName="iqray", Description="nodes among themselves", VpcId=network.id
        ).id
        self.image = self.ec2.meta.client.describe_images()["Images"][0]["ImageId"]
        for name in ("iqray-head", "iqray-worker"):
            boto3.client("iam").create_instance_profile(InstanceProfileName=name)

    def bootstrap(self, config: dict[str, Any]) -> dict[str, Any]:
        """The configuration with this account's ids, as `ray up` completes it."""
        from ray.autoscaler._private.aws.config import bootstrap_aws
        from ray.autoscaler._private.util import prepare_config

        text = json.dumps(config)
        text = text.replace("subnet-0123456789abcdef0", self.subnet)
        text = text.replace("sg-0123456789abcdef0", self.group)
        text = text.replace("ami-0123456789abcdef0", self.image)
        return bootstrap_aws(prepare_config(json.loads(text)))

    def launch(self, config: dict[str, Any]) -> dict[str, Any]:
        """One instance of each kind, by kind."""
        from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

        provider = AWSNodeProvider(config["provider"], config["cluster_name"])
        for kind in KINDS:
            node = config["available_node_types"][kind]["node_config"]
            provider.create_node(node, {"ray-node-type": kind}, 1)
        tagged = {}
        for instance in self.ec2.instances.all():
            tags = {tag["Key"]: tag["Value"] for tag in instance.tags}
            tagged[tags["ray-node-type"]] = instance
        return tagged

    def list_open_groups(self) -> list[str]:
        """Security groups that let the whole world in somewhere."""
        return [
            group.id
            for group in self.ec2.security_groups.all()
            for rule in group.ip_permissions
            if any(block["CidrIp"] == "0.0.0.0/0" for block in rule["IpRanges"])
        ]


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Account]:
    (tmp_path / ".ssh").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray keeps the key pair there that it makes
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        yield Account()


def test_instances_are_what_the_file_says(account: Account) -> None:
    instances = account.launch(account.bootstrap(read_ray_up("aws.yaml")))
    assert set(instances) == set(KINDS)
    for kind, instance in instances.items():
        assert instance.subnet_id == account.subnet
        assert [group["GroupId"] for group in instance.security_groups] == [account.group]
        assert instance.image_id == account.image
        assert instance.public_ip_address is None
        assert instance.metadata_options["HttpTokens"] == "required"
        profile = "iqray-head" if kind == "head" else "iqray-worker"
        assert instance.iam_instance_profile["Arn"].endswith(f"/{profile}")
        assert instance.instance_lifecycle == ("spot" if kind == "gpu" else None)


def test_ray_opens_nothing_to_the_world(account: Account) -> None:
    account.bootstrap(read_ray_up("aws.yaml"))
    assert account.list_open_groups() == []


def test_without_a_group_of_ours_ray_opens_ssh_to_the_world(account: Account) -> None:
    path = ("available_node_types", "gpu", "node_config", "SecurityGroupIds")
    account.bootstrap(change(read_ray_up("aws.yaml"), path, REMOVED))
    assert account.list_open_groups()


def test_a_field_that_ec2_does_not_have_is_refused(account: Account) -> None:
    path = ("available_node_types", "gpu", "node_config", "MetadataOption")
    config = account.bootstrap(change(read_ray_up("aws.yaml"), path, {"HttpTokens": "required"}))
    with pytest.raises(ParamValidationError, match="MetadataOption"):
        account.launch(config)
