"""Configuration of the unmodified components, as documents. Pure: functions of the plan.

Every setting that is not a plain necessity says why it is there.
"""

import json
from pathlib import PurePosixPath

from testbed.local.plan import (
    API_PORT,
    CLUSTER_DOMAIN,
    CONTROL_PLANE,
    POD_MTU,
    Plan,
)

PAUSE_IMAGE = "docker.io/sluice/pause:dev"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
# where a node finds its configuration, in its own /etc
NODE_CONFIG = PurePosixPath("/etc/kubernetes")
PKI = "pki"


def _document(content: object) -> str:
    return json.dumps(content, indent=1) + "\n"


def kubelet(plan: Plan, node: str) -> str:
    """KubeletConfiguration (kubelet.config.k8s.io/v1beta1)."""
    return _document(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(NODE_CONFIG / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(NODE_CONFIG / "kubelet.crt"),
            "tlsPrivateKeyFile": str(NODE_CONFIG / "kubelet.key"),
            "clusterDNS": [str(a) for a in plan.dns],
            "clusterDomain": CLUSTER_DOMAIN,
            "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
            "resolvConf": "/etc/resolv.conf",
            "cgroupDriver": "cgroupfs",
            # each node's pods in its own subtree, which the node's end can be found by
            "cgroupRoot": f"/{plan.cgroup}/{node}",
            "enforceNodeAllocatable": [],
            # machines with cgroup v1 are not refused
            "failCgroupV1": False,
            "failSwapOn": False,
            # the disk is the machine's: its fill level says nothing about the node
            "evictionHard": {"nodefs.available": "0%", "imagefs.available": "0%", "nodefs.inodesFree": "0%"},
            "imageGCHighThresholdPercent": 100,
            "nodeStatusUpdateFrequency": "4s",
            "shutdownGracePeriod": "0s",
            # the machine's kernel settings are not this kubelet's to change, nor are OOM scores where that is denied
            "featureGates": {"KubeletInUserNamespace": True},
        }
    )


def kube_proxy(plan: Plan) -> str:
    """KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1)."""
    return _document(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": plan.options.proxy_mode,
            "clusterCIDR": ",".join(str(net) for net in plan.pods),
            "clientConnection": {"kubeconfig": str(NODE_CONFIG / "kube-proxy.kubeconfig")},
            # the size of the connection table belongs to the machine
            "conntrack": {"maxPerCore": 0, "min": 0},
        }
    )


def cni(plan: Plan, node: str) -> str:
    """The network list of a node: its pod ranges are those of Node.spec.podCIDRs."""
    kinds: dict[str, dict[str, object]] = {
        "ptp": {"type": "ptp"},
        "bridge": {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True},
    }
    ranges = plan.pod_ranges(node)
    routes = [{"dst": "::/0" if net.version == 6 else "0.0.0.0/0"} for net in ranges]
    addresses = {
        "type": "host-local",
        # gone after a power-off, as on a node whose /run is memory
        "dataDir": "/run/cni-addresses",
        "ranges": [[{"subnet": str(net)}] for net in ranges],
        "routes": routes,
    }
    interface = {**kinds[plan.options.cni], "ipMasq": False, "mtu": POD_MTU, "ipam": addresses}
    port_mappings = {"type": "portmap", "capabilities": {"portMappings": True}}
    return _document({"cniVersion": "1.0.0", "name": "pods", "plugins": [interface, port_mappings]})


def containerd() -> str:
    """containerd's configuration (version 3)."""
    return f"""version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = ["io.containerd.nri.v1.nri"]
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{PAUSE_IMAGE}"
[plugins.'io.containerd.cri.v1.runtime']
  # lowering an OOM score is denied where the machine itself is a container
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["/opt/cni/bin", "/usr/lib/cni"]
    conf_dir = "/etc/cni/net.d"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"""


def hosts_file(plan: Plan) -> str:
    """/etc/hosts of a node."""
    lines = ["127.0.0.1 localhost", "::1 localhost"]
    lines += [f"{address} {host.name}" for host in plan.hosts for address in plan.addresses_of(host.name)]
    return "\n".join(lines) + "\n"


def node_object(plan: Plan, node: str) -> dict[str, object]:
    """The Node, made before its kubelet registers, so that its pod ranges are those of the plan from the start."""
    ranges = [str(net) for net in plan.pod_ranges(node)]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node, "labels": {"kubernetes.io/hostname": node, "kubernetes.io/os": "linux"}},
        "spec": {"podCIDR": ranges[0], "podCIDRs": ranges},
    }


def node_commands(plan: Plan, node: str) -> dict[str, list[str]]:
    """Command of each component of a node, in the order they start."""
    addresses = ",".join(str(a) for a in plan.host(node).lan)
    return {
        "containerd": ["containerd", f"--config={NODE_CONFIG}/containerd.toml"],
        "kubelet": [
            "kubelet",
            f"--config={NODE_CONFIG}/kubelet.yaml",
            f"--kubeconfig={NODE_CONFIG}/kubelet.kubeconfig",
            f"--hostname-override={node}",
            f"--node-ip={addresses}",
        ],
        "kube-proxy": ["kube-proxy", f"--config={NODE_CONFIG}/kube-proxy.yaml", f"--hostname-override={node}"],
    }


def control_plane_commands(plan: Plan, state: str) -> dict[str, list[str]]:
    """Command of each component of the control plane, in the order they start. `state` is the cluster's folder."""
    pki = f"{state}/{PKI}"
    services = ",".join(str(net) for net in plan.services)
    api_address = plan.host(CONTROL_PLANE).lan[0]
    return {
        "etcd": [
            "etcd",
            f"--data-dir={state}/etcd",
            # what a power cut of the machine would lose is remade by the next `up`
            "--unsafe-no-fsync",
            "--log-level=warn",
        ],
        "kube-apiserver": [
            "kube-apiserver",
            "--etcd-servers=http://127.0.0.1:2379",
            f"--service-cluster-ip-range={services}",
            f"--secure-port={API_PORT}",
            f"--advertise-address={api_address}",
            f"--client-ca-file={pki}/ca.crt",
            f"--tls-cert-file={pki}/apiserver.crt",
            f"--tls-private-key-file={pki}/apiserver.key",
            f"--service-account-key-file={pki}/tokens.pub",
            f"--service-account-signing-key-file={pki}/tokens.key",
            f"--service-account-issuer=https://kubernetes.default.svc.{CLUSTER_DOMAIN}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--kubelet-client-certificate={pki}/apiserver-kubelet.crt",
            f"--kubelet-client-key={pki}/apiserver-kubelet.key",
            "--kubelet-preferred-address-types=InternalIP",
            # no kube-proxy runs here: webhooks are reached at their pods
            "--enable-aggregator-routing=true",
        ],
        "kube-controller-manager": [
            "kube-controller-manager",
            f"--kubeconfig={state}/kube-controller-manager.kubeconfig",
            f"--service-account-private-key-file={pki}/tokens.key",
            f"--root-ca-file={pki}/ca.crt",
            f"--cluster-signing-cert-file={pki}/ca.crt",
            f"--cluster-signing-key-file={pki}/ca.key",
            "--use-service-account-credentials=true",
            # Nodes are made with their ranges, so that a node keeps its range for good
            "--allocate-node-cidrs=false",
            f"--cluster-cidr={','.join(str(net) for net in plan.pods)}",
            # a dead node is noticed in half the usual time
            "--node-monitor-grace-period=20s",
            "--node-monitor-period=2s",
            "--leader-elect=false",
        ],
        "kube-scheduler": [
            "kube-scheduler",
            f"--kubeconfig={state}/kube-scheduler.kubeconfig",
            "--leader-elect=false",
        ],
    }
