"""Each right is listed, with its reason, in docs/security.md, and none is there that is not."""

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

SECURITY = Path(__file__).parents[3] / "docs" / "security.md"
TABLE_HEAD = ["Account", "Scope", "Group", "Resource", "Verbs", "Why"]

ALL_RIGHTS = {"test": {"pool": "partners"}}
"""Values with which every account has all that it may ever have."""

Render = Callable[..., list[dict[str, Any]]]


class Right(NamedTuple):
    account: str
    scope: str
    group: str
    resource: str
    name: str
    verb: str


def granted(objects: list[dict[str, Any]]) -> Iterator[Right]:
    """Every single right that the bindings of the chart give to its ServiceAccounts."""
    roles = {(item["kind"], item["metadata"]["name"]): item for item in objects if item["kind"].endswith("Role")}
    for binding in objects:
        if not binding["kind"].endswith("RoleBinding"):
            continue
        role = roles[binding["roleRef"]["kind"], binding["roleRef"]["name"]]
        scope = "cluster" if binding["kind"] == "ClusterRoleBinding" else "namespace"
        if binding["metadata"].get("namespace") in ("default", "kube-public"):
            scope = f"namespace {binding['metadata']['namespace']}"
        for subject, rule in product(binding["subjects"], role["rules"]):
            names = rule.get("resourceNames", ["any"])
            for group, resource, name, verb in product(rule["apiGroups"], rule["resources"], names, rule["verbs"]):
                yield Right(subject["name"], scope, group or "core", resource, name, verb)


def documented() -> Iterator[Right]:
    """Every single right in the table of docs/security.md; a resource may be written `leases: name`."""
    rows = [
        [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]
        for line in SECURITY.read_text().splitlines()
        if line.startswith("|")
    ]
    start = rows.index(TABLE_HEAD) + 2
    for row in rows[start:]:
        if len(row) != len(TABLE_HEAD):
            break
        account, scope, group, resources, verbs, why = row
        assert why, f"no reason for {row}"
        for resource, verb in product(resources.split(", "), verbs.split(", ")):
            kind, _, name = resource.partition(": ")
            yield Right(account, scope, group, kind, name or "any", verb)


def test_every_right_has_a_reason_and_every_reason_a_right(render: Render) -> None:
    assert sorted(set(granted(render(ALL_RIGHTS)))) == sorted(set(documented()))


def test_no_right_is_given_twice(render: Render) -> None:
    rights = list(granted(render()))
    assert len(rights) == len(set(rights))


def test_no_wildcards_and_no_secrets(render: Render) -> None:
    for role in render():
        for rule in role.get("rules", []) if role["kind"].endswith("Role") else []:
            words = [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert "*" not in words, role["metadata"]["name"]
            assert "secrets" not in words, role["metadata"]["name"]
            assert not {"escalate", "bind", "impersonate"} & set(words), role["metadata"]["name"]


def test_the_operator_sees_no_pods_and_changes_no_node(render: Render) -> None:
    mine = [right for right in granted(render()) if right.account == "sluice-operator"]
    assert not [right for right in mine if right.resource.startswith("pods")]
    assert {right.verb for right in mine if right.resource.startswith("nodes")} == {"list", "watch"}


def test_an_agent_changes_nothing_but_what_is_its_own(render: Render) -> None:
    written = {
        right.resource
        for right in granted(render())
        if right.account == "sluice-agent" and right.verb not in {"get", "list", "watch"}
    }
    assert written == {"egressips/status", "egressnodes", "egressnodes/status", "leases"}


def test_users_may_write_policies_but_nothing_that_belongs_to_the_cluster(render: Render) -> None:
    for role in render():
        labels = role["metadata"].get("labels", {})
        if any(label.startswith("rbac.authorization.k8s.io/aggregate-to") for label in labels):
            assert [rule["resources"] for rule in role["rules"]] == [["egresspolicies"]]


def test_who_may_read_pools_is_for_administrators_to_say(render: Render) -> None:
    def readers(values: dict[str, Any]) -> list[str]:
        return [right.account for right in granted(render(values)) if right.resource == "egresspools"]

    chosen = {"rbac": {"poolViewers": ["tenants", "auditors"]}}
    assert {"tenants", "auditors"} <= set(readers(chosen))
    assert "system:authenticated" not in readers(chosen)
    assert not any(":" in account for account in readers({"rbac": {"poolViewers": []}}))
