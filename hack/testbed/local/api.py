"""Reads from the API server of a local cluster, for waits: a request is a hundred times cheaper than a kubectl."""

import http.client
import json
import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from testbed.local.plan import API_PORT

TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class Api:
    """The API server at `address`, asked with the administrator's certificate of the folder `pki`."""

    address: str
    pki: Path

    def get(self, path: str) -> str | None:
        """Body of a successful answer; None when there is no answer or another one."""
        context = ssl.create_default_context(cafile=self.pki / "ca.crt")
        context.load_cert_chain(self.pki / "admin.crt", self.pki / "admin.key")
        connection = http.client.HTTPSConnection(self.address, API_PORT, timeout=TIMEOUT, context=context)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read().decode()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        return body if response.status == http.client.OK else None

    def ready(self) -> bool:
        """Does the API server serve?"""
        return self.get("/readyz") == "ok"

    def nodes(self) -> list[dict[str, Any]]:
        """Every Node object; empty when there is no answer."""
        body = self.get("/api/v1/nodes")
        return list(json.loads(body)["items"]) if body else []

    def ready_nodes(self, *, after: float = 0) -> set[str]:
        """Names of the nodes that say Ready, with a heartbeat later than the Unix time `after`."""
        return {node["metadata"]["name"] for node in self.nodes() if is_ready(node, after=after)}


def is_ready(node: dict[str, Any], *, after: float = 0) -> bool:
    """Does a Node say Ready, with a heartbeat later than the Unix time `after`?"""
    for condition in node.get("status", {}).get("conditions", ()):
        if condition["type"] == "Ready" and condition["status"] == "True":
            return datetime.fromisoformat(condition["lastHeartbeatTime"]).timestamp() >= after
    return False
