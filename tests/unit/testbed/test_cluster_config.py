"""Configuration of the components: what they must agree on with the plan and with each other."""

import json
import tomllib

from testbed.cluster import ClusterOptions
from testbed.local import config, dns
from testbed.local.plan import Plan

PLAN = Plan(ClusterOptions())
BRIDGE = Plan(ClusterOptions(cni="bridge", proxy_mode="iptables", ip_family="ipv4", name="other"))


def flags(argv: list[str]) -> dict[str, str]:
    return dict(word.removeprefix("--").split("=", 1) for word in argv[1:] if "=" in word)


def test_a_nodes_network_gives_addresses_of_the_ranges_its_node_object_names() -> None:
    for node in PLAN.nodes:
        spec = config.node_object(PLAN, node)["spec"]
        plugin = json.loads(config.cni(PLAN, node))["plugins"][0]
        assert [r[0]["subnet"] for r in plugin["ipam"]["ranges"]] == spec["podCIDRs"]  # type: ignore[index]


def test_pods_have_a_default_route_of_each_family_and_the_agreed_mtu() -> None:
    plugin = json.loads(config.cni(PLAN, "n1"))["plugins"][0]
    assert (plugin["mtu"], plugin["type"]) == (1450, "ptp")
    assert [r["dst"] for r in plugin["ipam"]["routes"]] == ["0.0.0.0/0", "::/0"]
    plugin = json.loads(config.cni(BRIDGE, "n1"))["plugins"][0]
    assert (plugin["type"], [r["dst"] for r in plugin["ipam"]["routes"]]) == ("bridge", ["0.0.0.0/0"])


def test_pods_of_each_node_are_in_a_cgroup_that_the_cluster_is_removed_by() -> None:
    assert json.loads(config.kubelet(PLAN, "n2"))["cgroupRoot"] == f"/{PLAN.cgroup}/n2"
    assert json.loads(config.kubelet(BRIDGE, "n2"))["cgroupRoot"] == "/sluice-testbed/other/n2"


def test_kubelet_and_containerd_meet_at_one_socket_and_the_sandbox_image_is_the_imported_one() -> None:
    runtime = tomllib.loads(config.containerd())
    socket = json.loads(config.kubelet(PLAN, "n1"))["containerRuntimeEndpoint"]
    assert socket == f"unix://{runtime['grpc']['address']}"
    images = runtime["plugins"]["io.containerd.cri.v1.images"]
    assert images["pinned_images"]["sandbox"] == config.PAUSE_IMAGE


def test_the_kubelet_answers_only_whom_the_api_server_knows() -> None:
    kubelet = json.loads(config.kubelet(PLAN, "n1"))
    assert kubelet["authentication"]["anonymous"] == {"enabled": False}
    assert kubelet["authorization"] == {"mode": "Webhook"}


def test_kube_proxy_runs_in_the_mode_asked_for() -> None:
    assert json.loads(config.kube_proxy(PLAN))["mode"] == "nftables"
    assert json.loads(config.kube_proxy(BRIDGE))["mode"] == "iptables"


def test_the_control_plane_serves_the_ranges_of_the_plan_and_leaves_pod_ranges_to_it() -> None:
    commands = config.control_plane_commands(PLAN, "/state")
    assert list(commands) == ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]
    api = flags(commands["kube-apiserver"])
    assert api["service-cluster-ip-range"] == "10.96.0.0/16,fd00:10:96::/112"
    assert api["advertise-address"] == "198.18.0.10"
    manager = flags(commands["kube-controller-manager"])
    assert (manager["cluster-cidr"], manager["allocate-node-cidrs"]) == ("10.244.0.0/16,fd00:10:244::/56", "false")


def test_every_command_is_the_component_it_is_found_by() -> None:
    for commands in (config.control_plane_commands(PLAN, "/s"), config.node_commands(PLAN, "n1")):
        assert {name: argv[0] for name, argv in commands.items()} == {name: name for name in commands}


def test_a_node_announces_its_addresses_of_both_families() -> None:
    assert flags(config.node_commands(PLAN, "n3")["kubelet"])["node-ip"] == "198.18.0.13,fd00:18::13"


def test_the_test_domain_is_asked_at_the_host_outside() -> None:
    corefile = dns.corefile(PLAN)
    zone = corefile[corefile.index("partner.example {") :]
    assert "forward . 203.0.113.10 2001:db8:113::10" in zone.splitlines()[2]


def test_cluster_dns_answers_at_the_address_that_pods_are_given() -> None:
    (service,) = [m for m in dns.manifests(PLAN) if m["kind"] == "Service"]
    assert service["spec"]["clusterIPs"] == json.loads(config.kubelet(PLAN, "n1"))["clusterDNS"]  # type: ignore[index]


def test_every_name_in_the_hosts_file_is_a_host_of_the_plan() -> None:
    lines = [line.split() for line in config.hosts_file(PLAN).splitlines()]
    assert ["203.0.113.10", "outside"] in lines
    assert ["fd00:18::11", "n1"] in lines
