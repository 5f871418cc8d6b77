"""What is written last: only what an uninstall made untrue, in a way that needs nobody to correct it."""

from typing import Any

import pytest

from sluice_api.reasons import CONDITIONS, Reason
from sluice_operator.core import removal

NOW, BEFORE = "2026-02-02T00:00:00Z", "2026-01-01T00:00:00Z"


def document(kind: str, status: str = "True") -> dict[str, Any]:
    """A pool or policy all of whose conditions have this status."""
    entries = [
        {
            "type": str(row.type),
            "status": status,
            "reason": "X",
            "message": "x",
            "observedGeneration": 3,
            "lastTransitionTime": BEFORE,
        }
        for row in CONDITIONS
        if row.kind == kind
    ]
    return {"metadata": {"name": "one"}, "status": {"conditions": entries, "gateways": {"desired": 2, "ready": 2}}}


@pytest.mark.parametrize(
    ("kind", "patch_of"), [("EgressPool", removal.pool_patch), ("EgressPolicy", removal.policy_patch)]
)
def test_every_condition_is_true_afterwards_and_has_a_documented_reason(kind: str, patch_of: Any) -> None:
    patch = patch_of(document(kind), unclean=(), now=NOW)
    found = {entry["type"]: entry for entry in patch["conditions"]}
    rows = {str(row.type): row for row in CONDITIONS if row.kind == kind}
    assert list(found) == list(rows)
    for name, entry in found.items():
        if name in ("Accepted", "Assigned"):
            assert entry["status"] == "True", "what was decided stays"
            assert entry["lastTransitionTime"] == BEFORE
        else:
            assert entry["reason"] == Reason.REMOVED
            assert Reason.REMOVED in rows[name].bad
            assert entry["status"] == ("True" if name in ("Degraded", "Stalled") else "False")
            assert entry["lastTransitionTime"] == (BEFORE if entry["status"] == "True" else NOW)
        assert entry["observedGeneration"] == 3


@pytest.mark.parametrize(
    ("kind", "patch_of"), [("EgressPool", removal.pool_patch), ("EgressPolicy", removal.policy_patch)]
)
def test_what_says_so_already_is_not_written_again(kind: str, patch_of: Any) -> None:
    once = document(kind)
    once["status"] |= patch_of(once, unclean=("n2",), now=NOW)
    assert patch_of(once, unclean=("n2",), now="later") is None
    assert patch_of(once, unclean=(), now="later") is not None


def test_an_object_that_nobody_looked_at_is_not_touched() -> None:
    assert removal.pool_patch({"metadata": {"name": "new"}}, unclean=(), now=NOW) is None


def test_nobody_holds_an_address() -> None:
    assert removal.claim_patch({"status": {"holder": "n1"}}) == {"holder": None}
    assert removal.claim_patch({"status": {"slices": []}}) is None
    assert removal.claim_patch({}) is None
