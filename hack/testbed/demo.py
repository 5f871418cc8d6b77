"""`make demo`: Sluice on a real cluster, from nothing, with what a host outside sees.

Says each step as it begins it, and shows the commands a user would type. Interrupting it removes the cluster.
"""

import argparse
import json
import sys
from collections.abc import Sequence

import yaml

from testbed.cluster import ClusterError, ClusterOptions
from testbed.errors import ask_debug, ended
from testbed.system import NAMESPACE, Pod, System, policy, pool, running, traffic_pod

KINDS = "egresspools,egresspolicies,egressips,egressnodes"
POOL = pool("partners", "198.51.100.16/28", "2001:db8:100::/120")
POLICY = policy("billing", "billing", "partners", {"app": "billing"})


def say(text: str) -> None:
    """One line of progress."""
    print(f"==> {text}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; 0 when every selected pod was seen with the policy's egress IP."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument(
        "--keep", action="store_true", help="leave the cluster running (SLUICE_TESTBED=demo make down removes it)"
    )
    parser.add_argument("--proxy-mode", choices=("nftables", "iptables"), default="nftables")
    parser.add_argument("--cni", choices=("ptp", "bridge"), default="ptp")
    parser.add_argument("--debug", action="store_true", help="show where an error happened")
    options = parser.parse_args(arguments)
    if options.debug:
        ask_debug()
    wanted = ClusterOptions(name="demo", proxy_mode=options.proxy_mode, cni=options.cni)
    with running(wanted, say=say, keep=options.keep) as system:
        good = show(system)
        if options.keep:
            print(f"\nThe cluster stays: export KUBECONFIG={system.cluster.kubeconfig}")
    if not good:
        remedy = "see the lines marked WRONG; --keep leaves the cluster for a closer look"
        raise ClusterError("a pod was not seen as it should be", remedy)
    return 0


def show(system: System) -> bool:
    """Install, apply two YAML files, send from four pods, and print what the outside saw."""
    say(f"helm install sluice charts/sluice --namespace {NAMESPACE}")
    system.install()
    system.namespace("billing")
    say("kubectl apply -f pool.yaml -f policy.yaml")
    print("\n---\n".join(yaml.safe_dump(d, sort_keys=False).strip() for d in (POOL, POLICY)), flush=True)
    system.apply(POOL, POLICY)
    names = [(f"billing-{node}", node, {"app": "billing"}) for node in system.cluster.nodes]
    names.append(("other", system.cluster.nodes[0], {"app": "other"}))
    say("four pods: one with the label app=billing on each node, and another")
    pods = system.start_pods(*(traffic_pod("billing", name, node=node, labels=labels) for name, node, labels in names))
    system.wait_condition("egresspolicy", "billing", "Ready", namespace="billing", seconds=90)
    egress = set(system.addresses_of("billing", "billing"))
    say(f"a host outside, at {', '.join(map(str, system.outside.host.addresses))}, is asked what it sees")
    good = _report(system, pods, egress)
    say(f"kubectl get {KINDS} -A")
    print(system.kubectl("get", KINDS, "-A").rstrip(), flush=True)
    return good


def _report(system: System, pods: Sequence[Pod], egress: set[str]) -> bool:
    targets = [f"--target={f'[{a}]' if a.version == 6 else a}:7000" for a in system.outside.host.addresses]
    print(f"    {'pod':<12} {'on':<4} {'protocol':<9} seen from")
    good = True
    for pod in pods:
        for kind in ("tcp", "udp"):
            output = system.exec(pod, "traffic", "check", f"--kind={kind}", *targets, check=False)
            for answer in map(json.loads, output.splitlines()):
                seen = answer.get("address", answer.get("error"))
                right = (seen in egress) == pod.name.startswith("billing-") and answer["ok"]
                good &= right
                port = f" port {answer['port']}" if "port" in answer else ""
                note = "" if right else "   <- WRONG"
                print(f"    {pod.name:<12} {pod.node:<4} {kind:<9} {seen}{port}{note}")
    return good


if __name__ == "__main__":
    sys.exit(ended(main))
