"""The agent against a real API server: what it follows, what it reports, and what an outage does not do."""

import asyncio
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from tests.cluster.agent_bed import MERGE, NAMESPACE, NODE, POD, ROOT, SLUICE, Bed, until

from sluice_api.names import ANNOTATION_REMOVE
from sluice_api.timers import TRIAL
from sluice_node.agent.kube_client import KubeClient
from sluice_node.core.desired import DesiredNode, PolicyProgram
from testbed.apiserver import ApiServer

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
GATEWAY = {"app.kubernetes.io/name": "sluice-gateway", "sluice.dev/pool": "partners"}
EGRESS_IP = ip_address("198.51.100.7")


@pytest.fixture(scope="module", name="api")
def _api() -> Iterator[ApiServer]:
    with ApiServer() as server:
        done = server.kubectl("apply", "-f", str(ROOT / "crds"))
        assert done.returncode == 0, done.stderr
        done = server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        assert done.returncode == 0, done.stderr
        yield server


@pytest.fixture(name="bed")
def _bed(api: ApiServer, tmp_path: Path) -> Iterator[Bed]:
    bed = Bed(api, tmp_path)
    bed.prepare()
    yield bed
    bed.clear()


def serve_billing(bed: Bed) -> int:
    """A policy with a pod on the node; returns the policy's revision."""
    bed.pool()
    revision = bed.policy("billing", number=5, address=str(EGRESS_IP))
    bed.pod("billing-1", str(POD), labels={"app": "billing"})
    return revision


async def test_a_selected_pod_is_programmed_and_acknowledged(bed: Bed) -> None:
    revision = serve_billing(bed)
    async with bed.running():
        await until(lambda: bed.reported().get("revision") == revision, "the revision is reported")
        assert bed.kernel.holds.pods == {POD: 5}
        assert bed.kernel.holds.policies == (PolicyProgram(5, "partners", (EGRESS_IP,)),)
        assert bed.condition() == ("True", "Programmed")
        assert bed.reported()["policies"] == [
            {"namespace": "default", "name": "billing", "generation": 1, "pods": 1, "overridden": 0}
        ]
        owner = bed.api.request("GET", f"{SLUICE}/egressnodes/{NODE}").body["metadata"]["ownerReferences"][0]
        assert (owner["kind"], owner["name"]) == ("Node", NODE)


async def test_a_pod_that_comes_and_goes_is_followed(bed: Bed) -> None:
    serve_billing(bed)
    async with bed.running():
        await until(lambda: bool(bed.kernel.applied), "the first apply")
        bed.pod("billing-2", "10.1.0.6", labels={"app": "billing"})
        await until(lambda: len(bed.kernel.holds.pods) == 2, "the second pod is programmed")
        bed.delete("/api/v1/namespaces/default/pods/billing-2")
        await until(lambda: len(bed.kernel.holds.pods) == 1, "the second pod is forgotten")


async def test_the_revision_waits_for_the_slice_of_this_node(bed: Bed) -> None:
    revision = serve_billing(bed)
    bed.slices(str(EGRESS_IP), {"1024-2047": "another"})
    async with bed.running():
        await until(lambda: bed.condition() == ("True", "Programmed"), "the first report")
        assert bed.reported()["revision"] < revision
        bed.slices(str(EGRESS_IP), {"1024-2047": "another", "2048-3071": NODE})
        await until(lambda: bed.reported()["revision"] == revision, "the revision is reported")


async def test_an_outage_changes_nothing_and_afterwards_changes_arrive(bed: Bed) -> None:
    serve_billing(bed)
    async with bed.running() as agent:
        await until(lambda: bed.condition() == ("True", "Programmed"), "the first report")
        applies = len(bed.kernel.applied)
        await asyncio.to_thread(bed.api.stop)
        await asyncio.sleep(2.0)
        assert len(bed.kernel.applied) == applies
        await asyncio.to_thread(bed.api.start)
        assert len(bed.kernel.applied) == applies
        await asyncio.to_thread(bed.pod, "billing-2", "10.1.0.6", labels={"app": "billing"})
        await until(lambda: len(bed.kernel.holds.pods) == 2, "a change after the outage arrives", seconds=40)
        assert agent.state.missing() == []


async def test_what_was_deleted_while_nobody_watched_is_forgotten(bed: Bed) -> None:
    serve_billing(bed)
    async with bed.running():
        await until(lambda: bed.condition() == ("True", "Programmed"), "the first report")
        await asyncio.to_thread(bed.api.stop)
        await asyncio.to_thread(bed.delete_behind_its_back, "pods/default/billing-1")
        await asyncio.to_thread(bed.api.start)
        await until(lambda: not bed.kernel.holds.pods, "the pod is forgotten", seconds=40)


async def test_kubectl_waits_for_a_node_to_be_programmed_and_no_longer(bed: Bed) -> None:
    """kubectl waits while a condition's observedGeneration is below the object's generation."""
    wait = ("wait", f"egressnode/{NODE}", "--for=condition=Programmed", "--timeout=20s")
    async with bed.running():
        await until(lambda: bed.condition() == ("True", "Programmed"), "the first report")
        done = await asyncio.to_thread(bed.api.kubectl, *wait)
        assert done.returncode == 0, done.stderr
        assert bed.reported()["observedGeneration"] == 1


async def test_a_malformed_claim_changes_nothing(bed: Bed, caplog: pytest.LogCaptureFixture) -> None:
    serve_billing(bed)
    async with bed.running():
        await until(lambda: bool(bed.kernel.applied), "the first apply")
        before = bed.kernel.holds
        bed.slices(str(EGRESS_IP), {"1025-2048": NODE})
        await until(lambda: "EgressIP 198.51.100.7 is malformed" in caplog.text, "it is logged")
        assert bed.kernel.holds == before


async def test_a_gateway_pod_makes_the_node_gateway_and_holder(bed: Bed) -> None:
    serve_billing(bed)
    bed.pod("gw", "192.0.2.11", namespace=NAMESPACE, labels=GATEWAY)
    async with bed.running():
        await until(lambda: bed.reported().get("gatewayFor") == ["partners"], "the role is reported")
        assert bed.kernel.holds.announced == {EGRESS_IP: "eth0"}
        claim = f"{SLUICE}/egressips/{EGRESS_IP}"
        await until(lambda: bed.api.request("GET", claim).body["status"].get("holder") == NODE, "the holder is said")
        bed.delete(f"/api/v1/namespaces/{NAMESPACE}/pods/gw")
        await until(lambda: bed.reported().get("gatewayFor", []) == [], "the role is given up")
        assert bed.kernel.holds.announced == {}


async def test_a_dead_gateway_leaves_the_kernel_within_half_a_second(bed: Bed) -> None:
    serve_billing(bed)
    for number in (2, 3):
        bed.gateway(f"n{number}", f"192.0.2.1{number}", f"02:65:00:00:00:0{number}")
        bed.answering.add(f"02:65:00:00:00:0{number}")
    async with bed.running():
        await until(lambda: bool(bed.kernel.applied), "the first apply")
        assert bed.kernel.holds.live_gateways == {"partners": ("n2", "n3")}, (
            "first verdicts come before the first apply"
        )
        bed.answering.discard("02:65:00:00:00:02")
        took = await until(lambda: bed.kernel.holds.live_gateways == {"partners": ("n3",)}, "the dead one is out")
        assert took < 0.5
        await until(
            lambda: [(g["node"], g["alive"]) for g in bed.reported()["gateways"]] == [("n2", False), ("n3", True)],
            "its death is reported",
        )


async def test_what_the_kernel_refuses_is_reported_and_tried_again(bed: Bed) -> None:
    revision = serve_billing(bed)
    bed.kernel.refusal = "no buffer space"
    async with bed.running():
        await until(lambda: bed.condition() == ("False", "KernelError"), "the refusal is reported")
        assert bed.reported()["revision"] < revision
        assert bed.reported()["policies"][0]["generation"] == 0
        bed.kernel.refusal = None
        await until(lambda: bed.condition() == ("True", "Programmed"), "it is programmed")
        assert bed.reported()["revision"] == revision


async def test_what_somebody_took_from_the_kernel_is_put_back(bed: Bed) -> None:
    serve_billing(bed)
    async with bed.running():
        await until(lambda: bool(bed.kernel.applied), "the first apply")
        bed.kernel.intact = False
        await until(lambda: bed.kernel.intact, "it is applied again")


async def test_removal_lasts_until_the_annotation_goes(bed: Bed) -> None:
    serve_billing(bed)
    path = f"{SLUICE}/egressnodes/{NODE}"
    async with bed.running():
        await until(lambda: bed.condition() == ("True", "Programmed"), "the first report")
        applies = len(bed.kernel.applied)
        bed.api.request("PATCH", path, {"metadata": {"annotations": {ANNOTATION_REMOVE: "true"}}}, content=MERGE)
        await until(lambda: bed.condition() == ("False", "Removed"), "the removal is reported")
        assert bed.kernel.removals == 1
        assert "policies" not in bed.reported()
        bed.pod("billing-2", "10.1.0.6", labels={"app": "billing"})
        await asyncio.sleep(0.5)
        assert len(bed.kernel.applied) == applies
        bed.api.request("PATCH", path, {"metadata": {"annotations": {ANNOTATION_REMOVE: None}}}, content=MERGE)
        await until(lambda: bed.condition() == ("True", "Programmed"), "it is programmed again")


async def test_after_an_uninstallation_nothing_is_made_anew(bed: Bed) -> None:
    serve_billing(bed)
    path = f"{SLUICE}/egressnodes/{NODE}"
    async with bed.running():
        await until(lambda: bed.condition() == ("True", "Programmed"), "the first report")
        applies = len(bed.kernel.applied)
        bed.api.request("PATCH", path, {"metadata": {"annotations": {ANNOTATION_REMOVE: "true"}}}, content=MERGE)
        await until(lambda: bed.condition() == ("False", "Removed"), "the removal is reported")
        bed.delete(path)
        bed.pod("billing-2", "10.1.0.6", labels={"app": "billing"})
        await asyncio.sleep(1.5)
        assert bed.reported() == {}
        assert len(bed.kernel.applied) == applies


async def test_an_egressnode_that_somebody_deleted_comes_back(bed: Bed) -> None:
    revision = serve_billing(bed)
    async with bed.running():
        await until(lambda: bed.reported().get("revision") == revision, "the first report")
        bed.delete(f"{SLUICE}/egressnodes/{NODE}")
        await until(lambda: bed.reported().get("revision") == revision, "it is back")


async def test_a_quiet_node_writes_nothing(bed: Bed) -> None:
    serve_billing(bed)
    path = f"{SLUICE}/egressnodes/{NODE}"
    async with bed.running():
        await until(lambda: bed.condition() == ("True", "Programmed"), "the first report")
        before = bed.api.request("GET", path).body["metadata"]["resourceVersion"]
        await asyncio.sleep(2.5)
        assert bed.api.request("GET", path).body["metadata"]["resourceVersion"] == before


async def test_a_node_that_is_deleted_and_made_anew_loses_nothing_and_owns_its_objects_at_once(bed: Bed) -> None:
    revision = serve_billing(bed)
    node = f"/api/v1/nodes/{NODE}"
    own = f"{SLUICE}/egressnodes/{NODE}"
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/sluice-agent-{NODE}"

    def owner(path: str) -> str:
        answer = bed.api.request("GET", path)
        return str(answer.body["metadata"]["ownerReferences"][0]["uid"]) if answer.status == 200 else ""

    async with bed.running():
        await until(lambda: bed.reported().get("revision") == revision, "the first report")
        await until(lambda: bool(owner(lease)), "the first sign of life")
        uid, applies = owner(own), len(bed.kernel.applied)
        bed.delete(node)
        bed.delete(own)  # as the garbage collector does
        bed.delete(lease)
        await asyncio.sleep(1.5)
        assert bed.reported() == {}, "nothing is made that would be collected again"
        assert len(bed.kernel.applied) == applies
        bed.prepare()
        took = await until(lambda: owner(own) not in ("", uid), "it belongs to the new Node")
        assert took < 2
        await until(lambda: bed.reported().get("revision") == revision, "its status is there too")
        await until(lambda: owner(lease) not in ("", uid), "so does the sign of life")
        assert len(bed.kernel.applied) == applies, "the kernel was left alone"


async def test_a_claim_that_silences_the_api_server_is_taken_back_and_told_once_it_speaks_again(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a claim of the API server's virtual address would do, which no table of the cluster knows."""
    silent = False

    def programmed(desired: DesiredNode) -> None:
        nonlocal silent
        taken = any(EGRESS_IP in policy.egress_ips for policy in desired.policies)
        if taken != silent:
            (bed.api.pause if taken else bed.api.resume)()
            silent = taken

    async def is_there(client: KubeClient, *, seconds: float) -> bool:
        return not silent  # a process that is stopped still has a kernel that answers: here nobody does

    monkeypatch.setattr(KubeClient, "is_there", is_there)
    async with bed.running():
        await until(lambda: bed.condition() == ("True", "Programmed"), "the agent is up")
        bed.kernel.told = programmed
        try:
            await asyncio.to_thread(serve_billing, bed)
            await until(lambda: silent, "the claim is used, and nobody hears the API server any more")
            taken_back = await until(lambda: not silent, "the claim is taken back", seconds=TRIAL + 10)
        finally:
            bed.kernel.told = lambda desired: None
            if silent:
                bed.api.resume()
        assert taken_back > TRIAL - 1
        assert bed.kernel.holds.blocked_pods == {POD}, "and its pod is not let out without it"
        await until(lambda: "out of reach" in str(bed.reported().get("troubles")), "the claim is named", seconds=30)
