"""CONNECT tunnels carry bytes faithfully, end as their sides end, and hold back what the other side does not take."""

import hashlib
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
from tests.netns.proxy_bed import SERVER_V4, SERVER_V6, ProxyBed, policy, read_all, snapshot, wait_until

pytestmark = [pytest.mark.netns, pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")]
MEGABYTES_50 = os.urandom(1 << 20) * 50
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyBed]:
    with ProxyBed(tmp_path_factory.mktemp("proxy")) as bed:
        bed.agent.say(snapshot(policy(5), policy(6)))
        bed.start(workers=2)
        yield bed


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


def test_early_data_after_the_head_reaches_the_server_before_what_follows(bed: ProxyBed) -> None:
    port = bed.serve(lambda sock: sock.sendall(digest(read_all(sock))))
    for _ in range(50):
        with bed.tunnel(port, early=b"EARLY" * 10) as sock:
            sock.sendall(b"LATE" * 5)
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == digest(b"EARLY" * 10 + b"LATE" * 5)


def test_a_server_that_speaks_first_is_heard(bed: ProxyBed) -> None:
    def banner(sock: socket.socket) -> None:
        sock.sendall(b"220 hello\r\n")
        sock.sendall(b"%d" % len(read_all(sock)))

    port = bed.serve(banner)
    for _ in range(50):
        with bed.tunnel(port) as sock:
            assert sock.recv(11, socket.MSG_WAITALL) == b"220 hello\r\n"
            sock.sendall(b"abc")
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == b"3"


@pytest.mark.parametrize("host", [SERVER_V4, SERVER_V6])
def test_fifty_megabytes_arrive_unchanged_in_both_directions(bed: ProxyBed, host: str) -> None:
    def both(sock: socket.socket) -> None:
        sender = threading.Thread(target=sock.sendall, args=(MEGABYTES_50,))
        sender.start()
        received = digest(read_all(sock))
        sender.join()
        sock.sendall(received)

    port = bed.serve(both, host)
    with bed.tunnel(port, host=f"[{host}]" if ":" in host else host) as sock:

        def send() -> None:
            sock.sendall(MEGABYTES_50)
            sock.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        data = read_all(sock)
        sender.join()
    assert digest(data[:-64]) == digest(MEGABYTES_50)
    assert data[-64:] == digest(MEGABYTES_50)


def test_half_close_of_the_server_leaves_the_other_direction_open(bed: ProxyBed) -> None:
    got: list[bytes] = []

    def half(sock: socket.socket) -> None:
        sock.sendall(b"bye")
        sock.shutdown(socket.SHUT_WR)
        got.append(read_all(sock))

    port = bed.serve(half)
    with bed.tunnel(port) as sock:
        assert read_all(sock) == b"bye"
        sock.sendall(b"still here")
        sock.shutdown(socket.SHUT_WR)
        wait_until(lambda: got == [b"still here"], "the server reads on after its own half-close")


def test_a_reset_by_the_server_is_a_reset_for_the_client(bed: ProxyBed) -> None:
    def reset(sock: socket.socket) -> None:
        sock.recv(1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        sock.close()

    port = bed.serve(reset)
    for _ in range(20):
        with bed.tunnel(port, early=b"x") as sock, pytest.raises(ConnectionResetError):
            sock.recv(1)
    assert bed.line(port=port)["reason"] == "reset"


def test_a_reset_by_the_client_is_a_reset_for_the_server(bed: ProxyBed) -> None:
    seen: list[str] = []

    def watch(sock: socket.socket) -> None:
        try:
            sock.recv(1)
            sock.recv(1)
            seen.append("end")
        except ConnectionResetError:
            seen.append("reset")

    port = bed.serve(watch)
    sock = bed.tunnel(port, early=b"x")
    wait_until(lambda: sock.send(b"") == 0, "sent")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    sock.close()
    wait_until(lambda: seen == ["reset"], "the server sees the reset")


def test_a_reader_that_stalls_holds_the_sender_back_and_memory_stays_flat(bed: ProxyBed) -> None:
    sent = [0]

    def flood(sock: socket.socket) -> None:
        sock.settimeout(1)
        with suppress(TimeoutError):
            while sent[0] < 500_000_000:
                sent[0] += sock.send(MEGABYTES_50[: 1 << 20])

    port = bed.serve(flood)
    before = bed.memory()
    socks = [bed.tunnel(port) for _ in range(8)]
    seen = -1

    def steady() -> bool:
        nonlocal seen
        same, seen = seen == sent[0] and seen > 0, sent[0]
        return same

    wait_until(steady, "the senders stand still")
    assert sent[0] < 8 * 20_000_000
    assert bed.memory() - before < 4_000_000
    for sock in socks:
        sock.close()


def test_a_slow_reader_gets_everything(bed: ProxyBed) -> None:
    data = MEGABYTES_50[:20_000_000]
    port = bed.serve(lambda sock: sock.sendall(data))
    with bed.tunnel(port) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        received = hashlib.sha256()
        while piece := sock.recv(50_000):
            received.update(piece)
    assert received.hexdigest().encode() == digest(data)


def test_many_short_exchanges_lose_nothing_to_the_race_of_data_and_end(bed: ProxyBed) -> None:
    port = bed.serve(lambda sock: sock.sendall(sock.recv(65536) * 100))
    for _ in range(300):
        with bed.tunnel(port) as sock:
            sock.sendall(b"q" * 100)
            assert len(read_all(sock)) == 10_000


def test_the_line_in_the_log_says_who_where_and_how_much(bed: ProxyBed) -> None:
    port = bed.serve(lambda sock: sock.sendall(read_all(sock) + b"!"))
    with bed.tunnel(port, early=b"12345") as sock:
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"12345!"
    line = bed.line(port=port)
    assert (line["policy"], line["policyId"], line["client"]) == ("billing/policy-5", 5, "127.0.0.5")
    assert (line["host"], line["address"], line["egressAddress"]) == (SERVER_V4, SERVER_V4, "192.0.2.17")
    assert (line["verdict"], line["bytesSent"], line["bytesReceived"]) == ("allowed", 5, 6)


@pytest.mark.parametrize(("host", "source"), [(SERVER_V4, "240.0.0.6"), (SERVER_V6, "100:0:0:1::6")])
def test_the_server_sees_the_identity_source_of_the_clients_policy(bed: ProxyBed, host: str, source: str) -> None:
    port = bed.serve(lambda sock: sock.sendall(sock.getpeername()[0].encode()), host)
    with bed.tunnel(port, host=f"[{host}]" if ":" in host else host, client="127.0.0.6") as sock:
        assert read_all(sock).decode() == source


def test_a_worker_stays_within_thirty_megabytes(bed: ProxyBed) -> None:
    assert bed.memory() < 30_000_000
