"""What `helm test` runs when test.pool names a pool: with what address does a connection of this pod leave?

Makes an EgressPolicy that selects this pod, opens a connection outside, asks the agent of this node what became of it
in connection tracking, and, when test.url names a host that says who asked, compares its answer. Takes the policy away
in the end. Exits 0 when every connection left with an address of the policy. Standard library only.
"""

import http.client
import json
import os
import re
import signal
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
AGENT = "/run/sluice/agent.sock"
NAME = "sluice-test"
READY_SECONDS = 60
NOWHERE = {4: "192.0.2.1", 6: "2001:db8::1"}
DISCARD = 9
"""Without a host to ask, a datagram to nowhere (RFC 5737, RFC 3849, RFC 863): connection tracking tells of it too."""


class Failed(Exception):
    """The message says what is not as it should be."""


def api(method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """One request to the API server. Raises HTTPError."""
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    # Many clusters' certificates lack what RFC 5280 asks for and strict verification, Python 3.13's default, wants.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    headers = {"Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = Request(f"https://kubernetes.default.svc{path}", data=data, headers=headers, method=method)
    with urlopen(request, context=context, timeout=10) as response:  # noqa: S310
        answer: dict[str, Any] = json.load(response)
    return answer


def take_away(policies: str) -> None:
    """Delete the policy, if it is there."""
    try:
        api("DELETE", f"{policies}/{NAME}")
    except HTTPError as error:
        if error.code != http.client.NOT_FOUND:
            raise


def make(policies: str, pool: str, namespace: str) -> None:
    """Create the policy that selects this pod."""
    labels = {"app.kubernetes.io/name": NAME}
    api(
        "POST",
        policies,
        {
            "apiVersion": "sluice.dev/v1alpha1",
            "kind": "EgressPolicy",
            "metadata": {"name": NAME, "namespace": namespace},
            "spec": {"pool": pool, "podSelector": {"matchLabels": labels}},
        },
    )


def addresses(policies: str) -> list[str]:
    """The policy's egress IPs once it is programmed for this pod. Raises Failed with the words of its conditions."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        status = api("GET", f"{policies}/{NAME}").get("status", {})
        ready = next((entry for entry in status.get("conditions", ()) if entry["type"] == "Ready"), {})
        if ready.get("status") == "True" and status.get("pods"):
            return list(status["addresses"])
        if time.monotonic() > deadline:
            said = f"{ready.get('reason')}: {ready.get('message')}" if ready.get("status") != "True" else "no pod"
            raise Failed(f"the policy for this pod is not ready after {READY_SECONDS} s: {said}")
        time.sleep(1)


def seen_by_the_node(source: str, target: str, port: int) -> tuple[str, int]:
    """The address and port that a connection of this pod left with. Raises Failed."""
    with socket.socket(socket.AF_UNIX) as agent:
        agent.settimeout(10)
        agent.connect(AGENT)
        agent.sendall(json.dumps({"hello": 1, "flows": source}).encode() + b"\n")
        text = b"".join(iter(lambda: agent.recv(65536), b""))
    for flow in json.loads(text or b"[]"):
        if (flow["target"], flow["port"]) == (target, port):
            return flow["seen"], flow["seenPort"]
    raise Failed(f"{source} -> {target} port {port}: did not leave; no gateway of the pool may have carried it")


def send(source: str, version: int) -> tuple[str, int, set[str] | None]:
    """Send a datagram to nowhere; where it went."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.bind((source, 0))
        sender.sendto(b"sluice", (NOWHERE[version], DISCARD))
    return NOWHERE[version], DISCARD, None


def ask(url: str, source: str, version: int) -> tuple[str, int, set[str] | None]:
    """Ask a host who asks; where it is, and the addresses in its answer."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    try:
        target = socket.getaddrinfo(parts.hostname, port, family, socket.SOCK_STREAM)[0][4]
    except OSError as error:
        raise Failed(f"test.url: {parts.hostname} has no IPv{version} address: {error}") from error
    made: socket.socket = socket.create_connection((str(target[0]), port), timeout=10, source_address=(source, 0))
    if parts.scheme == "https":
        made = ssl.create_default_context().wrap_socket(made, server_hostname=parts.hostname)
    connection = http.client.HTTPConnection(str(parts.hostname), port, timeout=10)
    connection.sock = made
    connection.request("GET", parts.path or "/", headers={"Connection": "close"})
    text = connection.getresponse().read(65536).decode(errors="replace")
    return str(target[0]), port, set(mentioned(text))


def mentioned(text: str) -> Iterator[str]:
    """The addresses that a text mentions."""
    for word in re.findall(r"[0-9a-fA-F:.]+", text):
        try:
            yield str(ip_address(word.strip(".")))
        except ValueError:
            continue


def check(policies: str, url: str) -> None:
    """Open a connection of each family that this pod and the policy have. Raises Failed."""
    wanted = addresses(policies)
    own = [text for text in os.environ["POD_IPS"].split(",") if text]
    families = {ip_address(address).version for address in wanted}
    pairs = [(version, text) for text in own if (version := ip_address(text).version) in families]
    if not pairs:
        raise Failed(f"this pod has {', '.join(own)}, of no family of the policy's {', '.join(wanted)}")
    for version, source in pairs:
        target, port, answered = ask(url, source, version) if url else send(source, version)
        seen, seen_port = seen_by_the_node(source, target, port)
        print(f"{source} -> {target} port {port} left as {seen} port {seen_port}, says the node's connection tracking")
        if seen not in wanted:
            raise Failed(f"{seen} is no address of the policy, which has {', '.join(wanted)}")
        if answered is not None:
            if seen not in answered:
                raise Failed(f"{url} says that it was asked from {', '.join(sorted(answered)) or 'nobody'}, not {seen}")
            print(f"{url} says that it was asked from {seen}")


def main() -> int:
    """Make the policy, check, take it away."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    namespace, pool = os.environ["SLUICE_NAMESPACE"], os.environ["SLUICE_TEST_POOL"]
    policies = f"/apis/sluice.dev/v1alpha1/namespaces/{namespace}/egresspolicies"
    take_away(policies)
    try:
        make(policies, pool, namespace)
        check(policies, os.environ.get("SLUICE_TEST_URL", ""))
    except (Failed, OSError) as error:
        print(error)
        return 1
    finally:
        take_away(policies)
    return 0


if __name__ == "__main__":
    sys.exit(main())
