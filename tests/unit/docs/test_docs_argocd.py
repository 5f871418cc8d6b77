"""Argo CD's health script, run as Argo CD runs it: with the object as `obj`, for a table with status and message."""

from typing import Any

import lupa
import pytest
import yaml
from tests.documented import PROJECT

CUSTOMIZATIONS = yaml.safe_load((PROJECT / "docs/argocd/argocd-cm.yaml").read_text())["data"]


def _condition(kind: str, status: str, reason: str, message: str = "words") -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def _object(*conditions: dict[str, Any], generation: int = 2, observed: int | None = 2) -> dict[str, Any]:
    status: dict[str, Any] = {"conditions": list(conditions)}
    if observed is not None:
        status["observedGeneration"] = observed
    return {"metadata": {"name": "x", "generation": generation}, "status": status}


def judge(script: str, document: dict[str, Any]) -> tuple[str, str]:
    """What the script says of an object. Argo CD's Lua has no library for files or processes."""
    lua = lupa.LuaRuntime(register_eval=False, unpack_returned_tuples=True)
    for name in ("io", "os", "debug", "package", "require"):
        lua.globals()[name] = None
    lua.globals().obj = lua.table_from(document, recursive=True)
    found = lua.execute(script)
    return found.status, found.message


NOT_STALLED = _condition("Stalled", "False", "AsExpected", "")
NOT_DEGRADED = _condition("Degraded", "False", "AsExpected", "")
READY = _condition("Ready", "True", "Ready", "")
CASES = {
    "nobody has looked": ({"metadata": {"generation": 1}}, "Progressing", "operator"),
    "defaults of the definition": (
        _object(_condition("Ready", "Unknown", "Pending"), generation=1, observed=0),
        "Progressing",
        "operator",
    ),
    "an older generation was ready": (_object(READY, NOT_STALLED, observed=1), "Progressing", "operator"),
    "on its way": (
        _object(_condition("Ready", "False", "WaitingForNodes", "n2"), NOT_STALLED),
        "Progressing",
        "WaitingForNodes: n2",
    ),
    "ready": (_object(READY, NOT_DEGRADED, NOT_STALLED), "Healthy", ""),
    "ready with one gateway of two": (
        _object(READY, _condition("Degraded", "True", "GatewaysMissing", "1 of 2"), NOT_STALLED),
        "Healthy",
        "GatewaysMissing: 1 of 2",
    ),
    "stalled": (
        _object(_condition("Ready", "False", "PoolNotFound"), _condition("Stalled", "True", "PoolNotFound", "pool q")),
        "Degraded",
        "PoolNotFound: pool q",
    ),
    "stalled while what was there before goes on": (
        _object(READY, _condition("Stalled", "True", "GatewayRejected", "quota")),
        "Degraded",
        "GatewayRejected: quota",
    ),
}


@pytest.mark.parametrize("kind", ["EgressPool", "EgressPolicy"])
@pytest.mark.parametrize("name", CASES)
def test_argo_cd_shows_what_the_conditions_say(kind: str, name: str) -> None:
    document, status, words = CASES[name]
    found, message = judge(CUSTOMIZATIONS[f"resource.customizations.health.sluice.dev_{kind}"], document)
    assert found == status
    assert words in message
    assert bool(message) == bool(words)
