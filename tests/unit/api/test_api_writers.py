"""What the operator writes is what the models describe: a field that they do not know would be dropped unseen."""

from ipaddress import ip_address
from typing import Any

from sluice_api.addresses import object_name
from sluice_api.models import KINDS
from sluice_api.models.common import Model
from sluice_operator.core import render
from sluice_operator.core.actions import Claim
from sluice_operator.core.snapshot import Condition, FamilyCount, PolicyKey, PolicyStatus, PoolStatus, Slice

STATUS = {kind.name: kind.status for kind in KINDS}
READY = Condition("Ready", "False", "NoGatewayReady", "no gateway", 3, "2026-01-01T00:00:00Z")


def written(model: type[Model], document: dict[str, Any]) -> dict[str, Any]:
    """A document without nulls (a merge patch takes those fields away), when the model knows all of it."""
    present = {key: value for key, value in document.items() if value is not None}
    read = model.model_validate(present).model_dump(by_alias=True, exclude_unset=True, mode="json")
    assert read == present
    return present


def test_the_status_of_a_pool_is_known_to_the_model() -> None:
    status = PoolStatus(
        observed_generation=3,
        ipv4=FamilyCount(25, 3, 22),
        gateways_desired=2,
        gateway_nodes=("n2",),
        namespaces="team=x",
        proxy="http://partners.sluice-system.svc:3128",
        proxy_port=13128,
        conditions=(READY,),
    )
    display = written(STATUS["EgressPool"], render.pool_status(status))["display"]
    assert display == {
        "gateways": "0/2",
        "ipv4": "3/25",
        "ipv6": "0/0",
        "free": "22 IPv4",
        "namespaces": "team=x",
        "reason": "NoGatewayReady",
    }
    written(STATUS["EgressPool"], render.pool_status(PoolStatus()))


def test_the_status_of_a_policy_is_known_to_the_model() -> None:
    addresses = (ip_address("198.51.100.21"), ip_address("2001:db8:100::5"))
    status = PolicyStatus(3, 16383, 2**62, addresses, 12, 3, 2, conditions=(READY,))
    display = written(STATUS["EgressPolicy"], render.policy_status(status))["display"]
    assert display == {"addresses": "198.51.100.21,2001:db8:100::5", "nodes": "2/3", "reason": "NoGatewayReady"}
    written(STATUS["EgressPolicy"], render.policy_status(PolicyStatus()))


def test_a_claim_and_its_slices_are_known_to_the_model() -> None:
    address = ip_address("2001:db8:100::5")
    claim = render.claim(
        Claim(object_name(address), address, "partners", PolicyKey("billing", "billing"), "u", "2026-01-01T00:00:00Z")
    )
    kind = next(kind for kind in KINDS if kind.name == claim["kind"])
    written(kind.spec, claim["spec"])
    written(
        kind.status,
        render.claim_status((Slice("n1", 1024, 1151), Slice("n2", 64512, 65535, vanished="2026-01-01T00:00:00Z"))),
    )
    written(kind.status, render.claim_status((), resting_since="2026-01-01T00:00:00Z"))
