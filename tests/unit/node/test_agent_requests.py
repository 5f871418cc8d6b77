"""Requests say what the API server understands."""

import json

from sluice_node.agent import kube_requests as requests


def test_pods_are_asked_for_of_one_node_only() -> None:
    for request in (
        requests.list_page(requests.pods_of("n1")),
        requests.watch(requests.pods_of("n1"), version="5", lifetime=300, inactivity=90),
    ):
        assert request.path == "/api/v1/pods"
        assert request.query["fieldSelector"] == "spec.nodeName=n1"


def test_a_watch_asks_for_bookmarks_from_a_version_on() -> None:
    query = requests.watch(requests.POOL_KIND, version="5", lifetime=300, inactivity=90).query
    assert (query["resourceVersion"], query["allowWatchBookmarks"], query["timeoutSeconds"]) == ("5", "true", "300")


def test_the_egressnode_is_owned_by_its_node() -> None:
    request = requests.apply_egress_node("n1", node_uid="u")
    assert (request.method, request.path) == ("PATCH", "/apis/sluice.dev/v1alpha1/egressnodes/n1")
    assert request.content == "application/apply-patch+yaml"
    assert json.loads(request.body or b"")["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u"}
    ]


def test_of_an_egress_ip_only_the_holder_is_written() -> None:
    request = requests.apply_holder("198.51.100.7", holder="n1")
    assert request.path.endswith("/egressips/198.51.100.7/status")
    assert request.query == {"fieldManager": "sluice-agent", "force": "true"}
    assert json.loads(request.body or b"")["status"] == {"holder": "n1"}
