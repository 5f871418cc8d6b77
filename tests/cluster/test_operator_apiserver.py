"""The operator's processes against a real API server: a policy's life, and a leader's death."""

import signal
import subprocess
import sys
import time

import pytest
from tests.cluster.operator_bed import GROUP, NAMESPACE, OperatorBed, condition, eventually

from sluice_api.timers import RELIST

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


def test_a_policy_lives_from_pending_to_ready_to_gone(bed: OperatorBed) -> None:
    operator = bed.operator("a")
    eventually(lambda: bed.lease()["holderIdentity"] == "a")
    bed.pool("p", ["198.51.100.16/29", "2001:db8::/124"], gateways={"resources": {"requests": {"cpu": "0.5"}}})
    bed.node("n1")
    bed.node("n2")
    started = time.monotonic()
    created = bed.policy("default", "one", "p")
    assert condition(created, "Ready") == ("Unknown", "Pending")
    one = eventually(lambda: bed.items("egresspolicies")["default/one"]["status"].get("addresses"))
    print(f"assigned {1000 * (time.monotonic() - started):.0f} ms after creation")
    assert one == ["198.51.100.17", "2001:db8::1"]
    claim = bed.items("egressips")["198.51.100.17"]
    assert [entry["node"] for entry in claim["status"]["slices"]] == ["n1", "n2"]

    def ready() -> tuple[str, str]:
        return condition(bed.items("egresspolicies")["default/one"], "Ready")

    eventually(lambda: ready() == ("False", "WaitingForNodes"))
    bed.report("n1", gateway_for=("p",), pods={"default/one": 3})
    bed.report("n2")
    eventually(lambda: ready() == ("True", "Ready"))
    status = bed.items("egresspolicies")["default/one"]["status"]
    assert status["pods"] == 3
    assert status["nodes"] == {"concerned": 1, "programmed": 1}
    print(bed.kubectl("get", "egresspools,egresspolicies,egressips,egressnodes", "-A"))
    print(bed.kubectl("get", "events", "-A"))
    print(f"resident: {operator.resident_mebibytes()} MiB")

    assert "kopf" not in bed.kubectl("get", "egresspools,egresspolicies,egressips,egressnodes,ns", "-A", "-o", "yaml")

    bed.kubectl("delete", "egresspool", "p", "--wait=false")
    eventually(lambda: condition(bed.items("egresspools")["p"], "Ready")[1] == "InUse")
    command = "get egresspolicies --all-namespaces --field-selector spec.pool=p"
    assert "waits for 1 policy using this pool; delete them or" in str(bed.items("egresspools")["p"]["status"])
    assert command in str(bed.items("egresspools")["p"]["status"])
    assert bed.kubectl(*command.split(), "-o", "name").split() == ["egresspolicy.sluice.dev/one"]
    bed.kubectl("delete", "egresspolicy", "one")
    bed.report("n1", gateway_for=("p",))
    eventually(lambda: not bed.items("egresspools"))
    assert all(claim["status"]["restingSince"] for claim in bed.items("egressips").values())
    log = operator.log.read_text()
    assert "Traceback" not in log, log
    assert "ERROR" not in log, log
    assert ": 403 " not in log, log  # not the milliseconds of a line


def test_the_end_of_a_rest_wakes_the_operator_and_an_administrator_can_end_it_before(bed: OperatorBed) -> None:
    bed.operator("a")
    bed.pool("p", ["198.51.100.17"], quarantine="8s")
    bed.node("n1")

    def owner() -> str:
        claim = bed.items("egressips").get("198.51.100.17")
        return "" if claim is None or claim.get("status", {}).get("restingSince") else claim["spec"]["policy"]["name"]

    bed.policy("default", "one", "p")
    eventually(lambda: owner() == "one")
    bed.kubectl("delete", "egresspolicy", "one")
    bed.policy("default", "two", "p")
    eventually(lambda: condition(bed.items("egresspolicies")["default/two"], "Assigned")[1] == "PoolExhausted")
    started = time.monotonic()
    eventually(lambda: owner() == "two", seconds=20)
    print(f"two has the address {time.monotonic() - started:.1f} s after it was refused, with a rest of 8 s")
    bed.merge(f"{GROUP}/egresspools/p", {"spec": {"quarantine": "1h"}})
    bed.kubectl("delete", "egresspolicy", "two")
    eventually(lambda: bed.items("egressips")["198.51.100.17"]["status"].get("restingSince"))
    bed.policy("default", "three", "p")
    bed.policy("default", "two", "p")
    eventually(lambda: owner() == "two")
    bed.kubectl("delete", "egresspolicy", "two")
    eventually(lambda: bed.items("egressips")["198.51.100.17"]["status"].get("restingSince"))
    bed.kubectl("delete", "egressip", "198.51.100.17")
    eventually(lambda: owner() == "three")


def test_kubectl_waits_for_every_condition_of_every_kind(bed: OperatorBed) -> None:
    bed.operator("a")
    bed.pool("p", ["198.51.100.16/29"], gateways={"replicas": 1})
    bed.node("n1")
    bed.policy("default", "one", "p")
    eventually(lambda: bed.items("egresspolicies")["default/one"]["status"].get("addresses"))
    bed.report("n1", gateway_for=("p",), pods={"default/one": 1})
    bed.merge(f"{GROUP}/egressips/198.51.100.17/status", {"status": {"holder": "n1"}})
    well = {
        "egresspool/p": ("Accepted", "Ready", "Degraded=false", "Stalled=false"),
        "egresspolicy/one": ("Accepted", "Assigned", "Programmed", "Ready", "Degraded=false", "Stalled=false"),
        "egressip/198.51.100.17": ("Ready",),
    }
    for name, kinds in well.items():
        for kind in kinds:
            bed.kubectl("wait", name, f"--for=condition={kind}", "--timeout=10s")
    for name in ("egresspool/p", "egresspolicy/one", "egressip/198.51.100.17"):
        observed = bed.kubectl("get", name, "-o", "jsonpath={.metadata.generation} {.status.observedGeneration}")
        assert len(set(observed.split())) == 1, observed
    never = {"matchLabels": {"app": "a"}, "matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}
    bed.merge(f"{GROUP}/namespaces/default/egresspolicies/one", {"spec": {"podSelector": never}})
    bed.kubectl("wait", "egresspolicy/one", "--for=condition=Stalled", "--timeout=10s")
    assert condition(bed.items("egresspolicies")["default/one"], "Stalled") == ("True", "InvalidSpec")
    bed.report("n1")
    bed.kubectl("wait", "egressip/198.51.100.17", "--for=condition=Ready=false", "--timeout=10s")
    bed.kubectl("wait", "egresspool/p", "--for=condition=Degraded", "--timeout=10s")


def test_the_ports_of_a_node_that_is_gone_are_no_others_and_are_its_own_when_it_is_back(bed: OperatorBed) -> None:
    bed.operator("a")
    bed.pool("p", ["198.51.100.17"], portsPerSlice=16384)
    bed.policy("default", "one", "p")
    eventually(lambda: bed.items("egresspolicies"))
    for name in ("n1", "n2", "n3"):
        bed.node(name)
        bed.report(name, gateway_for=("p",))

    def ports() -> dict[str, str]:
        status = bed.items("egressips")["198.51.100.17"]["status"]
        return {f"{e['node']}{' vanished' if 'vanishedSince' in e else ''}": e["ports"] for e in status["slices"]}

    def assigned() -> tuple[str, str]:
        return condition(bed.items("egresspolicies")["default/one"], "Assigned")

    had = eventually(lambda: ports() if len(ports()) == 3 else None)
    bed.kubectl("delete", "egressnode", "n1")
    bed.node("n4")
    bed.report("n4", gateway_for=("p",))
    eventually(lambda: assigned() == ("False", "PortsExhausted"))
    assert ports() == {"n1 vanished": had["n1"], "n2": had["n2"], "n3": had["n3"]}
    assert "that of n1 until" in str(bed.items("egresspolicies")["default/one"]["status"]["conditions"])
    bed.node("n1")
    bed.report("n1", gateway_for=("p",))
    eventually(lambda: ports() == had)


def test_nothing_is_written_when_nothing_differs(bed: OperatorBed) -> None:
    operator = bed.operator("a")
    bed.pool("p", ["198.51.100.16/29"], gateways={"resources": {"requests": {"cpu": "0.5", "memory": "1024Mi"}}})
    bed.node("n1")
    bed.policy("default", "one", "p")
    eventually(lambda: condition(bed.items("egresspolicies")["default/one"], "Ready")[1] == "WaitingForNodes")
    bed.report("n1", gateway_for=("p",), pods={"default/one": 1})
    eventually(lambda: condition(bed.items("egresspolicies")["default/one"], "Ready")[0] == "True")
    time.sleep(1)
    before = operator.log.read_text().count("\n")
    # A heartbeat-like change of a node, and a whole round of lists.
    bed.merge(f"{GROUP}/egressnodes/n1/status", {"status": {"gateways": [{"node": "n1", "alive": True}]}})
    time.sleep(RELIST + 2)
    lines = operator.log.read_text().splitlines()
    assert len(lines) == before, lines[before:]
    deployments = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
    assert bed.call("GET", f"{deployments}/p-gateway")["metadata"]["generation"] == 1


def test_a_killed_leader_is_replaced_within_fifteen_seconds_and_nothing_is_given_twice(bed: OperatorBed) -> None:
    replicas = {name: bed.operator(name) for name in ("a", "b")}
    bed.pool("p", ["198.51.100.0/24"])
    for number in range(4):
        bed.node(f"n{number}")
    leader = eventually(lambda: bed.lease().get("holderIdentity"))
    other = next(name for name in replicas if name != leader)
    eventually(lambda: "started" in replicas[other].log.read_text())
    for number in range(40):
        bed.policy("default", f"policy-{number}", "p")
    eventually(lambda: len(bed.items("egressips")) > 3)
    killed = time.monotonic()
    replicas[leader].kill(signal.SIGKILL)
    claimed = len(bed.items("egressips"))
    eventually(lambda: bed.lease().get("holderIdentity") == other)
    taken = time.monotonic() - killed
    print(f"killed after {claimed} of 40 claims, taken over after {taken:.1f} s")

    def all_assigned() -> bool:
        return all(policy["status"].get("addresses") for policy in bed.items("egresspolicies").values())

    eventually(all_assigned)
    policies = bed.items("egresspolicies").values()
    addresses = [address for policy in policies for address in policy["status"]["addresses"]]
    ids = [policy["status"]["id"] for policy in policies]
    assert len(set(addresses)) == len(addresses) == len(bed.items("egressips")) == 40
    assert len(set(ids)) == 40
    for claim in bed.items("egressips").values():
        slices = claim["status"]["slices"]
        assert len({entry["ports"] for entry in slices}) == len({entry["node"] for entry in slices}) == 4
    assert taken <= 15


def test_a_leader_whose_api_server_hangs_steps_down_and_goes_on_afterwards(bed: OperatorBed) -> None:
    operator = bed.operator("a")
    bed.pool("p", ["198.51.100.0/24"])
    bed.node("n1")
    bed.policy("default", "before", "p")
    eventually(lambda: bed.items("egresspolicies")["default/before"]["status"].get("addresses"))
    bed.server.pause()
    try:
        eventually(lambda: "lost the lease" in operator.log.read_text())
    finally:
        bed.server.resume()
    bed.policy("default", "after", "p")
    eventually(lambda: bed.items("egresspolicies")["default/after"]["status"].get("addresses"))


def test_a_leader_that_stops_in_good_order_is_replaced_at_once(bed: OperatorBed) -> None:
    first, second = bed.operator("a"), bed.operator("b")
    leader = eventually(lambda: bed.lease().get("holderIdentity"))
    stopping = first if leader == "a" else second
    time.sleep(3)
    started = time.monotonic()
    stopping.kill(signal.SIGTERM)
    eventually(lambda: bed.lease().get("holderIdentity") not in ("", leader))
    print(f"handed over after {time.monotonic() - started:.1f} s")
    assert stopping.process.returncode == 0, stopping.log.read_text()


def test_an_outage_of_the_api_server_ends_no_operator_and_loses_nothing(bed: OperatorBed) -> None:
    operator = bed.operator("a")
    bed.pool("p", ["198.51.100.0/24"])
    bed.node("n1")
    bed.policy("default", "before", "p")
    eventually(lambda: bed.items("egresspolicies")["default/before"]["status"].get("addresses"))
    bed.server.stop()
    time.sleep(6)
    bed.server.start()
    bed.policy("default", "after", "p")
    eventually(lambda: bed.items("egresspolicies")["default/after"]["status"].get("addresses"), seconds=90)
    assert operator.process.poll() is None
    assert bed.items("egresspolicies")["default/before"]["status"]["addresses"] == ["198.51.100.1"]


def test_uninstall_names_the_nodes_it_waits_for_and_can_be_run_again(bed: OperatorBed) -> None:
    operator = bed.operator("a")
    bed.pool("p", ["198.51.100.0/24"])
    for name in ("n1", "n2"):
        bed.node(name)
        bed.call("POST", "/api/v1/nodes", {"metadata": {"name": name}})
        ready = {"type": "Ready", "status": "True", "reason": "x", "message": "", "lastHeartbeatTime": None}
        bed.merge(f"/api/v1/nodes/{name}/status", {"status": {"conditions": [ready | {"lastTransitionTime": None}]}})
    bed.policy("default", "one", "p")
    eventually(lambda: bed.items("egresspolicies")["default/one"]["status"].get("addresses"))
    operator.kill(signal.SIGTERM)
    removed = {"type": "Programmed", "status": "False", "reason": "Removed"}
    removed["lastTransitionTime"] = "2026-01-01T00:00:00Z"
    bed.merge(f"{GROUP}/egressnodes/n1/status", {"status": {"conditions": [removed]}})
    command = [sys.executable, "-m", "sluice_operator", "uninstall", "--namespace", NAMESPACE]
    hurried = [*command, "--timeout", "2"]
    first = subprocess.run(
        hurried, env=bed.environment("sluice-uninstall"), capture_output=True, text=True, check=False
    )
    print(first.stdout, first.stderr)
    assert first.returncode == 1
    assert "n2" in first.stderr
    assert "n1" not in first.stderr
    bed.merge(f"{GROUP}/egressnodes/n2/status", {"status": {"conditions": [removed]}})
    for _ in range(2):
        again = subprocess.run(
            command, env=bed.environment("sluice-uninstall"), capture_output=True, text=True, check=False
        )
        assert again.returncode == 0, again.stdout + again.stderr
    assert not bed.items("egressnodes")
    assert bed.items("egressips").keys() == {"198.51.100.1"}
    for found in (bed.items("egresspools")["p"], bed.items("egresspolicies")["default/one"]):
        assert condition(found, "Ready") == ("False", "Removed")
    assert "finalizers" not in bed.items("egresspools")["p"]["metadata"]
    assert not bed.call("GET", f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments")["items"]
