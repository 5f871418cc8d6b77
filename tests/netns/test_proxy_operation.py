"""The proxy as a service: it drains, replaces workers, outlives its agent, and stays within its bounds."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.netns.proxy_bed import (
    PORT,
    SERVER_V4,
    ProxyBed,
    inside,
    policy,
    read_all,
    read_head,
    snapshot,
    wait_until,
)

pytestmark = [pytest.mark.netns, pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")]
CONNECT = f"CONNECT {SERVER_V4}:443 HTTP/1.1\r\nHost: x\r\n\r\n".encode()


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[ProxyBed]:
    with ProxyBed(tmp_path) as bed:
        bed.agent.say(snapshot(policy(5)))
        yield bed


def echo(sock: socket.socket) -> None:
    while data := sock.recv(65536):
        sock.sendall(data)


def stop_listening(bed: ProxyBed) -> None:
    """Ask the proxy to end, and wait until it takes no more connections."""
    assert bed.process is not None
    bed.process.send_signal(signal.SIGTERM)
    wait_until(lambda: bed.page("/healthz") == 0, "the proxy stops to listen")


def test_a_tunnel_goes_on_while_the_proxy_drains_and_then_the_proxy_ends(bed: ProxyBed) -> None:
    bed.start("--drain-seconds", "20", workers=2)
    assert bed.process is not None
    with bed.tunnel(bed.serve(echo)) as sock:
        stop_listening(bed)
        sock.sendall(b"still")
        assert sock.recv(5, socket.MSG_WAITALL) == b"still"
        assert bed.process.poll() is None
    assert bed.process.wait(5) == 0
    assert [line["cut"] for line in bed.lines("drained")] == [0, 0]


def test_what_outlasts_the_drain_is_cut_with_a_reset_and_counted(bed: ProxyBed) -> None:
    bed.start("--drain-seconds", "0.3")
    assert bed.process is not None
    with bed.tunnel(bed.serve(echo)) as sock:
        stop_listening(bed)
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    assert bed.process.wait(5) == 0
    assert [line["cut"] for line in bed.lines("drained")] == [1]
    assert bed.line(verdict="allowed")["reason"] == "drained"


def test_a_worker_that_dies_is_replaced_and_the_other_ones_tunnels_live_on(bed: ProxyBed) -> None:
    bed.start(workers=2)
    port = bed.serve(echo)
    tunnels = [bed.tunnel(port) for _ in range(16)]
    victim = bed.workers()[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(bed.workers()) == 2 and victim not in bed.workers(), "a new worker")
    alive = sum(_answers(sock) for sock in tunnels)
    assert 0 < alive < 16
    for _ in range(16):
        with bed.tunnel(port) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
    for sock in tunnels:
        sock.close()


def _answers(sock: socket.socket) -> bool:
    try:
        sock.sendall(b"x")
        return sock.recv(1) == b"x"
    except ConnectionError:
        return False


def test_connections_that_arrive_while_the_worker_is_dead_are_served_by_the_next(bed: ProxyBed) -> None:
    bed.start()
    port = bed.serve(echo)
    # A worker that dies within a second of its start is replaced only after that second.
    os.kill(bed.workers()[0], signal.SIGKILL)
    with bed.tunnel(port) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"


def test_workers_end_when_their_supervisor_is_killed(bed: ProxyBed) -> None:
    bed.start("--drain-seconds", "0.2", workers=2)
    assert bed.process is not None
    workers = bed.workers()
    bed.process.kill()
    bed.process.wait()
    wait_until(lambda: not any(_running(pid) for pid in workers), "the workers end")


def _running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_proxy_is_ready_only_with_a_snapshot_and_says_why_it_refuses_before(bed: ProxyBed) -> None:
    bed.agent.stop()
    bed.start(wait=False)
    assert bed.page("/readyz") == 503
    assert b'"no-snapshot"' in bed.request(CONNECT)
    bed.agent.start()
    wait_until(lambda: bed.page("/readyz") == 200, "ready once the agent has spoken")
    assert bed.agent.hellos == [{"hello": 1, "pool": "partners"}]


def test_the_last_snapshot_stays_in_force_while_the_agent_is_away(bed: ProxyBed) -> None:
    bed.start()
    port = bed.serve(echo)
    bed.agent.stop()
    wait_until(lambda: bool(bed.lines("agent-away")), "the proxy notices")
    with bed.tunnel(port):
        assert bed.page("/readyz") == 200
    bed.agent.say(snapshot(policy(6)))
    bed.agent.start()
    wait_until(lambda: b"unknown-policy" in bed.request(CONNECT), "the snapshot of the agent that came back")
    assert len(bed.lines("agent-away")) == 1


@pytest.mark.parametrize("line", [b"nonsense\n", b'{"version": 2}\n', b'{"version": 1, "pool": "other"}\n'])
def test_a_line_that_is_no_snapshot_changes_nothing_and_is_logged(bed: ProxyBed, line: bytes) -> None:
    bed.start()
    bed.agent.say_bytes(line)
    wait_until(lambda: bool(bed.lines("snapshot-refused")), "it is logged")
    with bed.tunnel(bed.serve(echo)) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"


def test_a_new_snapshot_does_not_touch_open_tunnels_but_rules_the_next(bed: ProxyBed) -> None:
    bed.start(workers=2)
    port = bed.serve(echo)
    with bed.tunnel(port) as sock:
        nothing = [{"cidrs": ["203.0.113.0/24"]}]
        bed.agent.say(snapshot(policy(5, destinations=nothing)))
        for _ in range(8):
            wait_until(lambda: b'"destination"' in bed.request(CONNECT), "the new rule")
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"


def test_without_the_proxy_only_health_is_answered(bed: ProxyBed) -> None:
    bed.start("--no-proxy")
    assert bed.page("/healthz") == 200
    assert b'"proxy-off"' in bed.request(CONNECT)


def test_a_source_that_the_node_does_not_offer_is_a_503_and_nothing_leaves(bed: ProxyBed) -> None:
    bed.start()
    seen: list[str] = []
    port = bed.serve(lambda sock: seen.append(sock.getpeername()[0]))
    bed.run(["ip", "route", "delete", "local", "240.0.0.0/18", "dev", "lo"])
    answer = bed.request(f"CONNECT {SERVER_V4}:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert b" 503 " in answer
    assert b'"source"' in answer
    assert not seen


def test_beyond_the_limit_clients_get_503_and_health_checks_their_page(bed: ProxyBed) -> None:
    bed.start("--max-connections", "4")
    port = bed.serve(echo)
    tunnels = [bed.tunnel(port) for _ in range(4)]
    assert b'"too-many-connections"' in bed.request(CONNECT)
    assert bed.page("/healthz") == 200
    for sock in tunnels:
        sock.close()
    wait_until(lambda: _served(bed, port), "there is room again")


def _served(bed: ProxyBed, port: int) -> bool:
    with bed.connect() as sock:
        sock.sendall(f"CONNECT {SERVER_V4}:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return " 200 " in read_head(sock)[0]


def test_a_head_that_never_ends_is_given_up_after_ten_seconds(bed: ProxyBed) -> None:
    bed.start()
    answers: list[bytes] = []
    threads = [threading.Thread(target=lambda: answers.append(bed.request(b"CONNECT a:1 HTT"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.split()[1] for answer in answers] == [b"408"] * 3


def test_a_tunnel_that_is_silent_for_too_long_is_reset_and_a_busy_one_is_not(bed: ProxyBed) -> None:
    bed.start("--idle-seconds", "1")
    port = bed.serve(echo)
    with bed.tunnel(port) as silent, bed.tunnel(port) as busy:
        silent.settimeout(0.2)
        reset = False
        while not reset:
            busy.sendall(b"x")
            assert busy.recv(1) == b"x"
            try:
                silent.recv(1)
            except TimeoutError:
                continue
            except ConnectionResetError:
                reset = True
    assert bed.line(reason="idle-timeout")["verdict"] == "allowed"


def test_a_thousand_connections_come_and_go_without_a_trace(bed: ProxyBed) -> None:
    bed.start()
    port = bed.serve(echo)
    worker = bed.workers()[0]

    def churn() -> None:
        for _ in range(100):
            with bed.tunnel(port, early=b"x") as sock:
                assert sock.recv(1) == b"x"

    def together(work: Callable[[], None]) -> None:
        threads = [threading.Thread(target=work) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    together(churn)
    descriptors, memory = len(os.listdir(f"/proc/{worker}/fd")), bed.memory()  # noqa: PTH208
    together(churn)
    wait_until(lambda: len(os.listdir(f"/proc/{worker}/fd")) <= descriptors, "descriptors are given back")  # noqa: PTH208
    assert bed.memory() - memory < 1_000_000


def test_the_port_being_taken_is_said_plainly(bed: ProxyBed) -> None:
    with inside(bed.namespace):
        taken = socket.socket(socket.AF_INET6)
    with taken:
        taken.bind(("::", PORT))
        taken.listen()
        done = bed.run([*bed.program(), "--workers", "1"])
    assert (done.returncode, done.stderr) == (
        1,
        f"sluice-proxy: cannot listen on port {PORT}: Address already in use\n",
    )


def test_the_text_log_has_the_same_fields(bed: ProxyBed) -> None:
    bed.start("--log-format", "text")
    with bed.tunnel(bed.serve(echo)) as sock:
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b""
    wait_until(lambda: b"event=connection pool=partners policy=billing/policy-5" in bed.log.read_bytes(), "the line")
