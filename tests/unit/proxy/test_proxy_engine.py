"""The mechanics without a network: timers, one direction of a connection, the log."""

import json
import os
import select
import socket
from _socket import socket as raw_socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice_proxy.access_log import BACKLOG_MAX, AccessLog
from sluice_proxy.engine.flow import DONE, IDLE, SPLICE_FROM, Flow, Plumbing
from sluice_proxy.engine.loop import Alarm, Loop
from sluice_proxy.engine.timers import TICK, TimerWheel


class Item:
    """Something that is armed."""

    def __init__(self) -> None:
        self.timer_tick = 0

    def on_timer(self) -> None:
        """Not called in these tests: the wheel only says who is due."""


@settings(deadline=None)
@given(st.lists(st.floats(0, 100), max_size=20), st.lists(st.floats(0, 120), max_size=8))
def test_a_timer_is_never_early_and_late_by_a_tick_at_most(delays: list[float], looks: list[float]) -> None:
    wheel = TimerWheel()
    armed = {Item(): delay for delay in delays}
    for item, delay in armed.items():
        wheel.arm(item, delay)
    for now in sorted(looks):
        due = set(wheel.due(now))
        for item in list(armed):
            if item in due:
                assert armed.pop(item) <= now
            else:
                assert armed[item] > now - TICK * 1.001


def test_a_timer_that_is_disarmed_or_armed_again_does_not_ring_at_its_first_time() -> None:
    wheel, gone, moved = TimerWheel(), Item(), Item()
    wheel.arm(gone, 1.0)
    wheel.arm(moved, 1.0)
    wheel.disarm(gone)
    wheel.disarm(gone)
    wheel.arm(moved, 5.0)
    assert wheel.due(4.0) == []
    assert wheel.due(6.0) == [moved]
    assert wheel.delay(6.0) == -1


def test_the_delay_leads_to_the_next_timer_that_still_stands() -> None:
    wheel, first, second = TimerWheel(), Item(), Item()
    wheel.arm(first, 1.0)
    wheel.arm(second, 2.0)
    assert 1.0 <= wheel.delay(0.0) <= 1.0 + 1.001 * TICK
    wheel.disarm(first)
    assert 2.0 <= wheel.delay(0.0) <= 2.0 + 1.001 * TICK


class Pair:
    """A flow between two socket pairs: write at `sender`, read at `receiver`."""

    def __init__(self, **limit: int) -> None:
        pairs = [socket.socketpair() for _ in range(2)]
        self.sender, self.receiver = pairs[0][0], pairs[1][1]
        for end in (*pairs[0], *pairs[1]):
            end.setblocking(False)
        self._inner = [raw_socket(fileno=end.detach()) for end in (pairs[0][1], pairs[1][0])]
        self.plumbing = Plumbing()
        self.flow = Flow(self.plumbing, *self._inner, **limit)

    def close(self) -> None:
        for sock in (self.sender, self.receiver, *self._inner):
            sock.close()

    def fill(self, data: bytes) -> int:
        try:
            return self.sender.send(data)
        except BlockingIOError:
            return 0

    def drain(self) -> bytes:
        try:
            return self.receiver.recv(1 << 20)
        except BlockingIOError:
            return b""


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.close()


@pytest.mark.parametrize("size", [0, 1, 65536, SPLICE_FROM, 3_000_000])
def test_a_flow_delivers_all_bytes_in_order_by_copy_and_by_splice(pair: Pair, size: int) -> None:
    data = os.urandom(size)
    sent, received = 0, b""
    outcome = IDLE
    while outcome != DONE or len(received) < size:
        if sent < size:
            sent += pair.fill(data[sent : sent + 500_000])
        if sent == size:
            pair.sender.shutdown(socket.SHUT_WR)
        outcome = pair.flow.pump(True)
        received += pair.drain()
    assert received == data
    assert pair.flow.count == size


def test_a_flow_does_not_read_what_the_other_side_does_not_take(pair: Pair) -> None:
    taken = 0
    while pair.flow.pump(True) is not None:
        more = pair.fill(b"x" * 100_000)
        if not more and pair.flow.blocked:
            break
        taken += more
    assert pair.flow.blocked
    pair.flow.pump(True)
    assert pair.fill(b"x") == 0
    assert pair.flow.count < taken + 1
    pair.drain()
    pair.flow.pump(True)
    assert pair.drain()


def test_a_flow_ends_at_its_limit_although_more_is_there() -> None:
    pair = Pair(limit=10)
    pair.fill(b"0123456789NEXT")
    assert pair.flow.pump(True) == DONE
    assert pair.drain() == b"0123456789"
    pair.close()


def test_a_pipe_that_held_bytes_of_a_dead_connection_is_not_used_again(pair: Pair) -> None:
    pair.flow.put_first(b"x" * SPLICE_FROM)
    while not pair.flow.blocked:
        pair.fill(b"secret" * 20_000)
        pair.flow.pump(True)
        pair.drain() if not pair.flow.blocked and pair.flow.count < SPLICE_FROM * 2 else None
    pair.flow.release()
    fresh = pair.plumbing.take()
    assert fresh is not None
    with pytest.raises(BlockingIOError):
        os.read(fresh[0], 1)
    pair.plumbing.discard(fresh)


def test_a_fault_in_one_handler_is_reported_with_its_owner_and_the_loop_goes_on() -> None:
    faults: list[tuple[object, str]] = []
    loop = Loop(lambda owner, error: faults.append((owner, str(error))))

    class Broken:
        def work(self) -> None:
            raise LookupError("bug")

    broken, after = Broken(), Alarm(loop.stop)
    loop.put_off(broken.work)
    loop.arm(after, 0)
    loop.run()
    loop.close()
    assert faults == [(broken, "bug")]


def test_lines_are_written_whole_and_those_too_many_are_counted() -> None:
    read, write = os.pipe()
    os.set_blocking(read, False)
    log = AccessLog(write, form="json", pool="p")
    lines = 0
    while log._size <= BACKLOG_MAX:
        log.write("connection", 0.0, {"host": "a" * 900})
        lines += 1
    log.write("connection", 0.0, {"host": "dropped"})
    text = b""
    while select.select([read], [], [], 0)[0]:
        text += os.read(read, 1 << 16)
        log.flush()
    log.write("connection", 0.0, {"host": "b"})
    log.flush()
    text += os.read(read, 1 << 16)
    os.close(read)
    os.close(write)
    entries = [json.loads(line) for line in text.splitlines()]
    assert len(entries) == lines + 1
    assert entries[0] == {"time": "1970-01-01T00:00:00.000Z", "event": "connection", "pool": "p", "host": "a" * 900}
    assert entries[-1]["linesDropped"] == 1


def test_a_log_whose_reader_is_gone_does_not_stop_the_proxy() -> None:
    read, write = os.pipe()
    log = AccessLog(write, form="text", pool="p")
    os.close(read)
    log.write("connection", 0.0, {"detail": 'two "words"'})
    log.flush()
    os.close(write)
    assert log._size == 0
