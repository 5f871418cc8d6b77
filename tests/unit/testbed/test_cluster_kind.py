"""The kind backend: the documents and commands it hands to kind and to the engine."""

import json
import sys
from pathlib import Path

import pytest

from testbed import kind
from testbed.cluster import ClusterError, ClusterOptions
from testbed.local.plan import LAN, Plan

PLAN = Plan(ClusterOptions(name="x", nodes=2, proxy_mode="iptables"))


def test_kind_is_asked_for_the_nodes_ranges_and_proxy_mode_of_the_plan() -> None:
    document = json.loads(kind.kind_config(PLAN))
    assert [n["role"] for n in document["nodes"]] == ["control-plane", "worker", "worker"]
    assert document["networking"] == {
        "ipFamily": "dual",
        "kubeProxyMode": "iptables",
        "podSubnet": "10.244.0.0/16,fd00:10:244::/56",
        "serviceSubnet": "10.96.0.0/16,fd00:10:96::/112",
    }


def test_nodes_have_the_names_that_kind_gives_them() -> None:
    assert kind.node_names(ClusterOptions(name="x", nodes=3)) == ("x-worker", "x-worker2", "x-worker3")


def test_the_engine_takes_no_address_of_the_plan_on_its_network() -> None:
    argv = kind.network_command("net", LAN, mtu=1500)
    gateways = {word.split("=")[1] for word in argv if word.startswith("--gateway=")}
    assert gateways == {"198.18.0.254", "fd00:18::fe"}
    assert not gateways & {str(a) for host in PLAN.hosts for a in host.lan}


def test_a_host_outside_gets_the_addresses_of_the_plan_and_sees_the_code_read_only() -> None:
    argv = kind.host_command(PLAN, "outside", network="net", logs=Path("/logs"))
    assert {"--ip=198.18.0.200", "--ip6=fd00:18::200", "--network=net", f"--volume={kind.CODE}:{kind.CODE}:ro"} <= set(
        argv
    )


def test_the_callers_python_stands_for_the_containers() -> None:
    host = kind.Container("outside", "x-outside", (), Path("/logs"))
    assert host.command([sys.executable, "-m", "it's"])[-3:] == ["python3", "-m", "it's"]


def test_what_an_engine_cannot_do_is_said_with_what_can() -> None:
    cluster = kind.KindCluster(ClusterOptions(name="x"))
    with pytest.raises(ClusterError, match="use a local cluster"):
        cluster.partition("x-worker", "x-worker2")
    with pytest.raises(ClusterError, match="own network plugin"):
        kind.KindCluster(ClusterOptions(cni="bridge"))
