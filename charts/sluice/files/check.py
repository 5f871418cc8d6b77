"""What `helm test` runs in the operator's image: do the four kinds answer, and is every program ready?

Exits 0 when all is well within a minute, 1 with one line for each thing that is not.
"""

import os
import sys
import time

from kubernetes import client, config

KINDS = ("egresspools", "egresspolicies", "egressips", "egressnodes")
DEADLINE_SECONDS = 60


def complaints(namespace: str) -> list[str]:
    """What is not as it should be at this moment; empty when all is well."""
    found = []
    objects = client.CustomObjectsApi()
    listed = {}
    for kind in KINDS:
        try:
            listed[kind] = objects.list_cluster_custom_object("sluice.dev", "v1alpha1", kind)["items"]
        except client.ApiException as error:
            found.append(f"{kind}.sluice.dev does not answer: {error.status} {error.reason}")

    apps = client.AppsV1Api()
    operator = apps.read_namespaced_deployment("sluice-operator", namespace)
    ready, wanted = operator.status.ready_replicas or 0, operator.spec.replicas
    if ready < wanted:
        found.append(f"operator: {ready} of {wanted} replicas are ready")

    agents = apps.read_namespaced_daemon_set("sluice-agent", namespace).status
    if agents.desired_number_scheduled == 0:
        found.append("agent: no node is chosen by agent.nodeSelector")
    if agents.number_ready < agents.desired_number_scheduled:
        found.append(f"agent: {agents.number_ready} of {agents.desired_number_scheduled} are ready")
    nodes = listed.get("egressnodes", [])
    if len(nodes) < agents.desired_number_scheduled:
        found.append(f"egressnodes: {len(nodes)} objects for {agents.desired_number_scheduled} agents")
    return found


def main() -> int:
    config.load_incluster_config()
    deadline = time.monotonic() + DEADLINE_SECONDS
    while found := complaints(os.environ["SLUICE_NAMESPACE"]):
        if time.monotonic() > deadline:
            print("\n".join(found))
            return 1
        time.sleep(2)
    print("the four kinds answer, the operator and every agent are ready")
    return 0


sys.exit(main())
