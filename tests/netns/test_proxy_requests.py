"""Real clients through the proxy: what is served, what is refused, and with which words."""

import hashlib
import http.server
import json
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from tests.netns.proxy_bed import (
    PORT,
    SERVER_V4,
    SERVER_V6,
    ProxyBed,
    inside,
    policy,
    read_all,
    read_head,
    snapshot,
    wait_until,
)
from tests.netns.proxy_names import NameServer

pytestmark = [pytest.mark.netns, pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")]
BLOB = os.urandom(1 << 20) * 5


class Site(http.server.BaseHTTPRequestHandler):
    """A server outside: GET gives a blob, POST gives back the digest of what came."""

    protocol_version = "HTTP/1.1"
    seen: list[dict[str, str]]

    def do_GET(self) -> None:
        self.seen.append(dict(self.headers.items()))
        self.send_response(200)
        self.send_header("Content-Length", str(len(BLOB)))
        self.send_header("Connection", "keep-alive, X-Secret")
        self.send_header("X-Secret", "1")
        self.end_headers()
        self.wfile.write(BLOB)

    def do_POST(self) -> None:
        self.seen.append(dict(self.headers.items()))
        body = bytearray()
        if self.headers["Transfer-Encoding"] == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
        else:
            body += self.rfile.read(int(self.headers["Content-Length"]))
        answer = hashlib.sha256(body).hexdigest().encode()
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"40\r\n" + answer + b"\r\n0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyBed]:
    with ProxyBed(tmp_path_factory.mktemp("proxy")) as bed:
        limited = [
            {
                "cidrs": ["198.51.100.0/24"],
                "except": ["198.51.100.99/32"],
                "ports": [{"protocol": "TCP", "port": 1024, "endPort": 65535}],
            }
        ]
        bed.agent.say(snapshot(policy(5), policy(6, destinations=limited, addresses=["192.0.2.18"])))
        bed.start(resolv_conf="nameserver 127.0.0.53\nsearch example.test\n")
        yield bed


@pytest.fixture(scope="module")
def names(bed: ProxyBed) -> Iterator[NameServer]:
    server = NameServer(bed.namespace)
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="module")
def site(bed: ProxyBed) -> Iterator[int]:
    Site.seen = []
    with inside(bed.namespace):
        server = http.server.ThreadingHTTPServer((SERVER_V4, 0), Site)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def curl(bed: ProxyBed, *arguments: str, client: str = "127.0.0.5") -> tuple[str, bytes]:
    """Status and body of a curl through the proxy."""
    out = bed.directory / "body"
    out.unlink(missing_ok=True)
    proxy = [
        "-x",
        f"http://127.0.0.1:{PORT}",
        "--interface",
        client,
        "-o",
        str(out),
        "-w",
        "%{http_connect}/%{http_code}",
    ]
    done = bed.run(["curl", "-sS", "--max-time", "20", *proxy, *arguments])
    return done.stdout, out.read_bytes() if out.exists() else b""


def refused(answer: bytes) -> tuple[int, str, str]:
    """Status, reason and detail of a problem document, which says so and closes."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\nConnection: close" in head
    assert b"\r\nContent-Type: application/problem+json" in head
    problem = json.loads(body)
    assert f'\r\nProxy-Status: sluice; error={problem["error"]}; details="'.encode() in head
    assert problem["status"] == int(head.split()[1])
    return problem["status"], problem["reason"], problem["detail"]


def connect(target: str) -> bytes:
    return f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()


def test_curl_tunnels_and_gets_the_whole_blob(bed: ProxyBed, site: int) -> None:
    assert curl(bed, "-p", f"http://{SERVER_V4}:{site}/") == ("200/200", BLOB)


def test_curl_forwards_and_gets_the_whole_blob(bed: ProxyBed, site: int) -> None:
    assert curl(bed, f"http://{SERVER_V4}:{site}/") == ("000/200", BLOB)


@pytest.mark.parametrize("extra", [[], ["-H", "Transfer-Encoding: chunked"], ["-H", "Expect: 100-continue"]])
def test_a_body_arrives_whole_in_either_framing(bed: ProxyBed, site: int, extra: list[str]) -> None:
    blob = bed.directory / "blob"
    blob.write_bytes(BLOB)
    url = f"http://{SERVER_V4}:{site}/"
    assert curl(bed, "--data-binary", f"@{blob}", *extra, url) == ("000/200", hashlib.sha256(BLOB).hexdigest().encode())


def test_what_is_between_client_and_proxy_stays_there(bed: ProxyBed, site: int) -> None:
    secrets = [
        "-H",
        "Proxy-Authorization: Basic c2VjcmV0",
        "-H",
        "Connection: X-Hop",
        "-H",
        "X-Hop: 1",
        "-H",
        "X-End: 1",
    ]
    curl(bed, *secrets, f"http://{SERVER_V4}:{site}/path?query", "-D", str(bed.directory / "head"))
    seen = Site.seen[-1]
    assert seen["Host"] == f"{SERVER_V4}:{site}"
    assert seen["X-End"] == "1"
    assert seen["Connection"] == "close"
    assert seen["Via"].startswith("1.1 sluice-")
    assert not {"Proxy-Authorization", "Proxy-Connection", "X-Hop"} & set(seen)
    head = (bed.directory / "head").read_text()
    assert "X-Secret" not in head
    assert "Connection: close" in head


def test_only_one_request_goes_to_the_server_whatever_follows_it(bed: ProxyBed) -> None:
    got: list[bytes] = []

    def once(sock: socket.socket) -> None:
        got.append(sock.recv(65536))
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokGARBAGE")
        got.append(read_all(sock))

    port = bed.serve(once)
    request = f"GET http://{SERVER_V4}:{port}/first HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = bed.request((request + "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n").encode())
    wait_until(lambda: len(got) == 2, "the server's connection ended")
    assert b"smuggled" not in got[0] + got[1]
    assert answer.endswith(b"\r\n\r\nok")


def test_a_response_that_ends_early_ends_with_a_reset(bed: ProxyBed) -> None:
    def short(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

    port = bed.serve(short)
    with pytest.raises(ConnectionResetError):
        bed.request(f"GET http://{SERVER_V4}:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"", "server-closed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "bad-response"),
        (b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", "bad-response"),
        (b"HTTP/1.1 101 Switching\r\n\r\n", "bad-response"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000, "bad-response"),
    ],
)
def test_a_response_that_is_none_becomes_a_502(bed: ProxyBed, reply: bytes, reason: str) -> None:
    def strange(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(reply)

    port = bed.serve(strange)
    answer = bed.request(f"GET http://{SERVER_V4}:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert refused(answer)[:2] == (502, reason)


def test_a_client_that_no_policy_selects_is_told_how_to_change_that(bed: ProxyBed) -> None:
    status, reason, detail = refused(bed.request(connect(f"{SERVER_V4}:443"), client="127.0.0.1"))
    assert (status, reason) == (403, "not-selected")
    assert "not selected by any policy of pool partners" in detail
    assert "EgressPolicy" in detail


def test_a_client_of_an_unknown_policy_is_refused(bed: ProxyBed) -> None:
    assert refused(bed.request(connect(f"{SERVER_V4}:443"), client="127.0.0.9"))[:2] == (403, "unknown-policy")


def test_a_policy_without_an_address_of_the_family_is_refused_and_nothing_leaves(bed: ProxyBed) -> None:
    port = bed.serve(lambda sock: sock.sendall(b"reached"), SERVER_V6)
    bed_policy = refused(bed.request(connect(f"[{SERVER_V6}]:{port}"), client="127.0.0.6"))
    assert bed_policy[:2] == (403, "destination")
    bed.agent.say(snapshot(policy(5), policy(6, addresses=["192.0.2.18"])))
    wait_until(
        lambda: (
            refused(bed.request(connect(f"[{SERVER_V6}]:{port}"), client="127.0.0.6"))[:2] == (503, "no-egress-address")
        ),
        "the new snapshot is in force",
    )
    limited = {"cidrs": ["198.51.100.0/24"], "except": ["198.51.100.99/32"]}
    ports = [{"protocol": "TCP", "port": 1024, "endPort": 65535}]
    bed.agent.say(snapshot(policy(5), policy(6, destinations=[{**limited, "ports": ports}], addresses=["192.0.2.18"])))
    wait_until(
        lambda: refused(bed.request(connect(f"[{SERVER_V6}]:{port}"), client="127.0.0.6"))[1] == "destination",
        "the old snapshot is back",
    )


@pytest.mark.parametrize(
    ("target", "reason"),
    [("203.0.113.80:5000", "destination"), ("198.51.100.99:5000", "destination"), ("198.51.100.80:443", "port")],
)
def test_only_the_policys_destinations_are_reached(bed: ProxyBed, target: str, reason: str) -> None:
    assert refused(bed.request(connect(target), client="127.0.0.6"))[:2] == (403, reason)


@pytest.mark.parametrize(
    "target",
    [
        "127.0.0.1:13128", "[::1]:80", "169.254.169.254:80", "[fd00:ec2::254]:80", "10.244.1.7:80", "0.0.0.0:80",
        "[::ffff:127.0.0.1]:80", "[64:ff9b::a9fe:a9fe]:80", "[64:ff9b::10.244.0.1]:80", "[2002:7f00:1::]:80",
        "240.0.0.5:80", "[100:0:0:1::5]:80", "224.0.0.1:80", "[fe80::1]:80", "[::]:80", "255.255.255.255:80",
    ],
)  # fmt: skip
def test_addresses_of_the_cluster_and_the_node_are_refused(bed: ProxyBed, target: str) -> None:
    assert refused(bed.request(connect(target)))[0] == 403


def test_a_refused_connect_is_closed_and_no_byte_of_it_is_forwarded(bed: ProxyBed) -> None:
    reached: list[bytes] = []
    port = bed.serve(lambda sock: reached.append(read_all(sock)), "127.0.0.7")
    follow = f"GET http://{SERVER_V4}:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    answer = bed.request(connect(f"127.0.0.7:{port}") + follow)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert refused(answer)[0] == 403
    assert not reached


def test_an_address_that_answers_nothing_is_not_sent_early_data(bed: ProxyBed) -> None:
    with inside(bed.namespace):
        closed = socket.socket()
    with closed:
        closed.bind((SERVER_V4, 0))
        target = f"{SERVER_V4}:{closed.getsockname()[1]}"
        assert refused(bed.request(connect(target) + b"early"))[:2] == (502, "refused")


def test_a_name_is_resolved_and_its_address_logged(bed: ProxyBed, names: NameServer) -> None:
    port = bed.serve(lambda sock: sock.sendall(b"here"))
    names.records["partner.test"] = [SERVER_V4]
    with bed.tunnel(port, host="Partner.Test.") as sock:
        assert read_all(sock) == b"here"
    line = bed.line(port=port)
    assert (line["host"], line["address"]) == ("partner.test", SERVER_V4)


def test_a_name_that_alternates_with_loopback_is_never_dialled_there(bed: ProxyBed, names: NameServer) -> None:
    port = bed.serve(lambda sock: sock.sendall(b"outside"))
    trap: list[bytes] = []
    bed.serve(lambda sock: trap.append(read_all(sock)), "127.0.0.1", port)
    names.records["rebind.test"] = [SERVER_V4, "127.0.0.1"]
    statuses = []
    for _ in range(12):
        with bed.connect() as sock:
            sock.sendall(connect(f"rebind.test:{port}"))
            head, _ = read_head(sock)
            statuses.append(int(head.split()[1]))
            assert (b"outside" in read_all(sock)) == (statuses[-1] == 200)
    assert statuses.count(200) == statuses.count(403) == 6
    assert not trap


def test_an_address_that_does_not_answer_costs_a_quarter_of_a_second_when_there_is_another(
    bed: ProxyBed, names: NameServer
) -> None:
    port = bed.serve(lambda sock: sock.sendall(b"here"))
    names.records["all.test"] = ["203.0.113.99", SERVER_V4]
    started = time.monotonic()
    with bed.tunnel(port, host="all.test") as sock:
        assert 0.25 <= time.monotonic() - started < 3
        assert read_all(sock) == b"here"
    assert bed.line(port=port)["address"] == SERVER_V4


def test_addresses_that_are_refused_do_not_hide_the_one_that_is_not(bed: ProxyBed, names: NameServer) -> None:
    port = bed.serve(lambda sock: sock.sendall(b"here"))
    names.records["all.mixed.test"] = ["127.0.0.1", "10.244.0.1", SERVER_V4, "169.254.169.254"]
    with bed.tunnel(port, host="all.mixed.test") as sock:
        assert read_all(sock) == b"here"
    assert bed.line(port=port)["address"] == SERVER_V4


def test_an_answer_cut_short_is_asked_again_over_tcp(bed: ProxyBed, names: NameServer) -> None:
    port = bed.serve(lambda sock: sock.sendall(b"here"))
    names.records["big.test"] = [SERVER_V4]
    with bed.tunnel(port, host="big.test") as sock:
        assert read_all(sock) == b"here"
    assert ("big.test", "tcp") in names.asked


def test_only_a_name_without_a_dot_is_completed_from_the_search_list(bed: ProxyBed, names: NameServer) -> None:
    port = bed.serve(lambda sock: sock.sendall(b"here"))
    names.records["intra.example.test"] = [SERVER_V4]
    with bed.tunnel(port, host="intra") as sock:
        assert read_all(sock) == b"here"
    assert refused(bed.request(connect("no.such:443")))[:2] == (502, "no-such-name")
    assert ("no.such.example.test", "udp") not in names.asked


def test_a_name_server_that_says_nothing_becomes_a_504(bed: ProxyBed, names: NameServer) -> None:
    names.silent = True
    started = time.monotonic()
    answer = bed.request(connect("silent.test:443"))
    names.silent = False
    assert refused(answer)[:2] == (504, "dns-timeout")
    assert time.monotonic() - started < 10


def test_a_head_is_refused_at_its_first_impossible_byte(bed: ProxyBed) -> None:
    assert refused(bed.request(b"CONNECT a:1 HTTP/1.1\nHost: a\n\n"))[:2] == (400, "bad-line-end")
    assert refused(bed.request(b"\x16\x03\x01\x02\x00"))[:2] == (400, "bad-line-end")
    assert refused(bed.request(b"GET / HTTP/1.1\r\nA: " + b"a" * 20_000))[:2] == (431, "head-too-large")


def test_nothing_a_client_sends_comes_back(bed: ProxyBed) -> None:
    for head in (b"<script> / HTTP/1.1\r\n", b"GET http://<script>/ HTTP/1.1\r\n", b"GET /<script> HTTP/1.1\r\n"):
        assert b"<script>" not in bed.request(head + b"Host: <script>\r\nX: <script>\r\n\r\n")


def test_only_health_pages_are_served_by_the_proxy_itself(bed: ProxyBed) -> None:
    assert bed.page("/healthz") == 200
    assert bed.page("/readyz") == 200
    assert bed.page("/") == 404
