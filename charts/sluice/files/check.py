"""What `helm test` runs in the operator's image: do the four kinds answer, and is every program ready?

Exits 0 when all is well within a minute, 1 with one line for each thing that is not. Standard library only.
"""

import json
import os
import ssl
import sys
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
KINDS = ("egresspools", "egresspolicies", "egressips", "egressnodes")
DEADLINE_SECONDS = 60


def get(path: str) -> dict[str, Any]:
    """The answer of the API server. Raises URLError (HTTPError among them)."""
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    # Many clusters' certificates lack what RFC 5280 asks for and strict verification, Python 3.13's default, wants.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    token = (ACCOUNT / "token").read_text()
    request = Request(f"https://kubernetes.default.svc{path}", headers={"Authorization": f"Bearer {token}"})
    with urlopen(request, context=context, timeout=10) as response:  # noqa: S310
        answer: dict[str, Any] = json.load(response)
    return answer


def complaints(namespace: str) -> list[str]:
    """What is not as it should be at this moment; empty when all is well. Raises URLError."""
    found = []
    listed: dict[str, Any] = {}
    for kind in KINDS:
        try:
            listed[kind] = get(f"/apis/sluice.dev/v1alpha1/{kind}")["items"]
        except HTTPError as error:
            found.append(f"{kind}.sluice.dev does not answer: {error}")

    apps = f"/apis/apps/v1/namespaces/{namespace}"
    operator = get(f"{apps}/deployments/sluice-operator")
    ready, wanted = operator["status"].get("readyReplicas", 0), operator["spec"]["replicas"]
    if ready < wanted:
        found.append(f"operator: {ready} of {wanted} replicas are ready")

    agents = get(f"{apps}/daemonsets/sluice-agent")["status"]
    scheduled = agents["desiredNumberScheduled"]
    if scheduled == 0:
        found.append("agent: agent.nodeSelector chooses no node")
    if agents["numberReady"] < scheduled:
        found.append(f"agent: {agents['numberReady']} of {scheduled} are ready")
    nodes = listed.get("egressnodes", [])
    if len(nodes) < scheduled:
        found.append(f"egressnodes: {len(nodes)} objects for {scheduled} agents")
    return found


def main() -> int:
    """Ask until all is well or the time is up."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            found = complaints(os.environ["SLUICE_NAMESPACE"])
        except URLError as error:
            found = [f"the API server: {error}"]
        if not found:
            print("the four kinds answer, the operator and every agent are ready")
            if not os.environ.get("SLUICE_TEST_POOL"):
                print("no connection was opened: name a pool by the value test.pool to see how one leaves")
            return 0
        if time.monotonic() > deadline:
            print("\n".join(found))
            return 1
        time.sleep(2)


if __name__ == "__main__":
    sys.exit(main())
