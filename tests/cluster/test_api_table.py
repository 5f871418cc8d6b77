"""The API server itself keeps what must not be out, says why, and changes nothing meanwhile."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.api_table import BAD, CHANGES, GOOD, POLICY, POOL, Bad, Change, Document, Good, policy, pool
from tests.cluster.operator_bed import eventually

from sluice_api.models import KINDS
from sluice_api.names import API_VERSION, GROUP, VERSION
from sluice_api.reasons import CONDITIONS
from testbed.apiserver import Answer, ApiServer

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]
ROOT = Path(__file__).parents[2]
STORED = f"{GROUP}/"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
_KINDS = {kind.name: kind for kind in KINDS}


@pytest.fixture(scope="module", name="api")
def _api() -> Iterator[ApiServer]:
    with ApiServer() as server:
        done = server.kubectl("apply", "-f", str(ROOT / "crds"))
        assert done.returncode == 0, done.stderr
        done = server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        assert done.returncode == 0, done.stderr
        for kind in KINDS:  # a definition is established a moment before its collection is served
            eventually(lambda name=kind.name: server.request("GET", path(name)).status == 200)
        yield server


def path(kind: str, name: str = "") -> str:
    """Where objects of a kind are; namespaced ones in `default`."""
    where = "namespaces/default/" if _KINDS[kind].namespaced else ""
    return f"/apis/{GROUP}/{VERSION}/{where}{_KINDS[kind].plural}" + (f"/{name}" if name else "")


def create(api: ApiServer, kind: str, name: str, spec: Document) -> Answer:
    """Create an object as a client without strict field validation would: unknown fields are dropped, not refused."""
    body = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
    return api.request("POST", path(kind) + "?fieldValidation=Ignore", body)


@pytest.fixture(name="clean")
def _clean(api: ApiServer) -> Iterator[ApiServer]:
    yield api
    for kind in KINDS:
        api.request("DELETE", path(kind.name))


def _shown(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))[:60]


@pytest.mark.parametrize("case", GOOD, ids=lambda case: f"{case.kind} {_shown(case.spec)}")
def test_a_good_object_is_taken(clean: ApiServer, case: Good) -> None:
    answer = create(clean, case.kind, case.name, case.spec)
    assert answer.status == 201, answer.message


@pytest.mark.parametrize(
    "case", BAD, ids=lambda case: f"{case.kind} {case.field}: {case.message[:30]} {_shown(case.spec)}"
)
def test_a_bad_object_is_refused_at_its_field_and_leaves_nothing(clean: ApiServer, case: Bad) -> None:
    before = clean.stored(STORED)
    answer = create(clean, case.kind, case.name, case.spec)
    assert answer.status == 422, answer.body
    assert case.message in answer.message
    causes = answer.body["details"]["causes"]
    assert case.field in {cause.get("field", "") for cause in causes}
    ours = [cause for cause in causes if "some validation rules were not checked" not in cause["message"]]
    assert "<nil>" not in {cause.get("field", "") for cause in ours}
    assert clean.stored(STORED) == before


@pytest.mark.parametrize("case", CHANGES, ids=lambda case: f"{case.kind} {_shown(case.patch)}: {case.message[:30]}")
def test_a_change_is_judged_as_a_creation_is_and_by_what_it_changes(clean: ApiServer, case: Change) -> None:
    assert create(clean, case.kind, case.name, case.before).status == 201
    before = clean.stored(STORED)
    answer = clean.request("PATCH", path(case.kind, case.name), {"spec": case.patch}, content=MERGE)
    if not case.message:
        assert answer.status == 200, answer.message
        return
    assert answer.status == 422, answer.body
    assert case.message in answer.message
    assert clean.stored(STORED) == before


def test_without_an_operator_every_condition_says_that_it_waits(clean: ApiServer) -> None:
    create(clean, POLICY, "case", policy())
    status = clean.request("GET", path(POLICY, "case")).body["status"]
    found = {(c["type"], c["status"], c["reason"], c["message"]) for c in status["conditions"]}
    kinds = [row.type.value for row in CONDITIONS if row.kind == POLICY]
    assert found == {(kind, "Unknown", "Pending", "waiting for the operator") for kind in kinds}


def test_a_user_cannot_write_the_status_with_the_spec(clean: ApiServer) -> None:
    body = {"apiVersion": API_VERSION, "kind": POLICY, "metadata": {"name": "case"}, "spec": policy()}
    clean.request("POST", path(POLICY), {**body, "status": {"id": 7}})
    assert "id" not in clean.request("GET", path(POLICY, "case")).body.get("status", {})


def test_defaults_are_filled_in_where_a_user_sees_them(clean: ApiServer) -> None:
    spec = create(clean, POOL, "case", pool()).body["spec"]
    assert spec["gateways"] == {"replicas": 2, "proxy": {"enabled": True, "port": 3128}}
    assert spec["announcement"] == {"mode": "L2"}
    assert spec["portsPerSlice"] == 1024
    assert spec["quarantine"] == "1h"
    assert create(clean, POLICY, "case", policy()).body["spec"]["otherwise"] == "NodeAddress"


def test_two_components_write_their_own_parts_of_a_status(clean: ApiServer) -> None:
    address, where = "198.51.100.21", path("EgressIP", "198.51.100.21")
    owner = {"namespace": "billing", "name": "billing", "uid": "u"}
    create(clean, "EgressIP", address, {"address": address, "pool": "partners", "policy": owner})
    body = {"apiVersion": API_VERSION, "kind": "EgressIP", "metadata": {"name": address}}
    slices = [{"ports": "40960-41983", "node": "n1"}]
    for manager, status in (("sluice-operator", {"slices": slices, "nodes": 1}), ("sluice-agent", {"holder": "n2"})):
        query = f"/status?fieldManager={manager}"
        answer = clean.request("PATCH", where + query, {**body, "status": status}, content=APPLY)
        assert answer.status == 200, answer.message
    status = clean.request("GET", where).body["status"]
    assert {key: status[key] for key in ("slices", "nodes", "holder")} == {"slices": slices, "nodes": 1, "holder": "n2"}


@pytest.mark.parametrize("kind", ["EgressPolicy", "EgressIP"])
def test_objects_are_found_by_their_pool(clean: ApiServer, kind: str) -> None:
    owner = {"namespace": "billing", "name": "billing", "uid": "u"}
    for number, name in enumerate(("partners", "others")):
        address = f"198.51.100.{21 + number}"
        spec = policy(pool=name) if kind == POLICY else {"address": address, "pool": name, "policy": owner}
        assert create(clean, kind, address if kind != POLICY else name, spec).status == 201
    found = clean.request("GET", path(kind) + "?fieldSelector=spec.pool=partners").body["items"]
    assert [item["spec"]["pool"] for item in found] == ["partners"]


COLUMNS = {
    "EgressPool": ["Name", "Ready", "Gateways", "IPv4", "IPv6", "Free", "Namespaces", "Policies", "Reason", "Age"],
    "EgressPolicy": ["Name", "Pool", "Addresses", "Pods", "Nodes", "Ready", "Reason", "Age"],
    "EgressIP": ["Name", "Pool", "Namespace", "Policy", "Holder", "Nodes", "Ready", "Resting", "Reason", "Age"],
    "EgressNode": ["Name", "GatewayFor", "Programmed", "Reason", "Revision", "Age"],
}


def _row(api: ApiServer, kind: str, name: str) -> dict[str, object]:
    table = api.request("GET", path(kind, name), accept="application/json;as=Table;v=v1;g=meta.k8s.io").body
    names = [column["name"] for column in table["columnDefinitions"]]
    return dict(zip(names, table["rows"][0]["cells"], strict=True))


@pytest.mark.parametrize("kind", COLUMNS)
def test_kubectl_shows_the_columns_that_are_documented(clean: ApiServer, kind: str) -> None:
    table = clean.request("GET", path(kind), accept="application/json;as=Table;v=v1;g=meta.k8s.io").body
    assert [column["name"] for column in table["columnDefinitions"]] == COLUMNS[kind]


def test_the_reason_of_a_node_is_shown_only_while_something_is_wrong(clean: ApiServer) -> None:
    create(clean, "EgressNode", "n1", {})
    assert _row(clean, "EgressNode", "n1")["Reason"] == "Pending"
    condition = {"type": "Programmed", "reason": "Programmed", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    for status, reason, shown in (("True", "Programmed", None), ("False", "KernelError", "KernelError")):
        conditions = [{**condition, "status": status, "reason": reason}]
        body = {"status": {"conditions": conditions, "gatewayFor": ["partners"]}}
        answer = clean.request("PATCH", path("EgressNode", "n1") + "/status", body, content=MERGE)
        assert answer.status == 200, answer.message
        row = _row(clean, "EgressNode", "n1")
        assert (row["Programmed"], row["Reason"]) == (status, shown)


@pytest.mark.parametrize("name", ["egresspools", "egresspool", "epool", "epol", "eip", "en", "egress"])
def test_kinds_go_by_their_short_names_and_their_category(api: ApiServer, name: str) -> None:
    done = api.kubectl("get", name, "--all-namespaces")
    assert done.returncode == 0, done.stderr


def test_kubectl_explains_a_field(api: ApiServer) -> None:
    text = " ".join(api.kubectl("explain", "egresspool.spec.addresses").stdout.split())
    assert "a range first-last" in text
    assert "Entries must not overlap" in text


def test_kubectl_refuses_a_misspelt_field_by_itself(clean: ApiServer) -> None:
    document = {"apiVersion": API_VERSION, "kind": POOL, "metadata": {"name": "case"}, "spec": pool(portPerSlice=128)}
    done = clean.kubectl("create", "-f", "-", stdin=json.dumps(document))
    assert done.returncode != 0
    assert "spec.portPerSlice" in done.stderr
