"""The lease, by a clock that the test turns: one leader at a time, replaced in time, stepping down before that."""

import asyncio

import pytest
from tests.unit.operator.operator_fakes import FakeApi

from sluice_api.timers import LEASE_DURATION, LEASE_MARGIN, LEASE_RETRY
from sluice_operator.shell import kube
from sluice_operator.shell.kube import Unavailable
from sluice_operator.shell.leader import Leader


class Clock:
    """Seconds, as the test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Bed:
    """Two replicas, one API server, one clock."""

    def __init__(self) -> None:
        self.api = FakeApi()
        self.clock = Clock()
        self.a = Leader(self.api, namespace="s", identity="a", clock=self.clock)
        self.b = Leader(self.api, namespace="s", identity="b", clock=self.clock)

    async def attempts(self, *leaders: Leader, seconds: float) -> None:
        """Let these replicas live for a while."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            for leader in leaders:
                await leader.attempt()
            self.clock.now += LEASE_RETRY


async def test_the_first_to_come_leads_and_the_other_waits() -> None:
    bed = Bed()
    await bed.attempts(bed.a, bed.b, seconds=60)
    assert bed.a.is_leader()
    assert not bed.b.is_leader()


async def test_a_dead_leader_is_replaced_within_fifteen_seconds() -> None:
    bed = Bed()
    await bed.attempts(bed.a, bed.b, seconds=20)
    died = bed.clock.now
    while not bed.b.is_leader():
        await bed.b.attempt()
        bed.clock.now += LEASE_RETRY
    assert bed.clock.now - LEASE_RETRY - died <= 15


async def test_a_leader_that_cannot_renew_steps_down_before_anyone_may_follow() -> None:
    bed = Bed()
    await bed.attempts(bed.a, bed.b, seconds=20)
    renewed = bed.clock.now - LEASE_RETRY
    await bed.attempts(bed.b, seconds=LEASE_DURATION - LEASE_MARGIN)
    assert not bed.b.is_leader()
    assert not bed.a.is_leader(), "the old leader still believes in its lease"
    assert bed.clock.now < renewed + LEASE_DURATION + LEASE_RETRY


async def test_at_no_moment_do_two_lead_however_their_attempts_fall() -> None:
    for offset in range(10):
        bed = Bed()
        await bed.a.attempt()
        for step in range(60):
            bed.clock.now += 0.5
            if step < 10 + offset and step % 5 == 0:
                await bed.a.attempt()
            if step % 5 == offset % 5:
                await bed.b.attempt()
            assert not (bed.a.is_leader() and bed.b.is_leader())
        assert bed.b.is_leader()


async def test_a_term_counts_from_before_the_request_so_a_slow_answer_shortens_it() -> None:
    bed = Bed()

    async def slow() -> None:
        bed.clock.now += 3

    bed.api.pause = slow
    sent = bed.clock.now
    await bed.a.attempt()
    bed.clock.now = sent + LEASE_DURATION - LEASE_MARGIN
    assert not bed.a.is_leader()


async def test_a_lease_given_up_is_taken_at_the_next_attempt() -> None:
    bed = Bed()
    await bed.a.attempt()
    await bed.b.attempt()
    await bed.a.release()
    assert not bed.a.is_leader()
    await bed.b.attempt()
    assert bed.b.is_leader()


async def test_of_two_that_find_an_expired_lease_one_wins() -> None:
    bed = Bed()
    await bed.a.attempt()
    c = Leader(bed.api, namespace="s", identity="c", clock=bed.clock)
    for leader in (bed.b, c):
        await leader.attempt()
    bed.clock.now += LEASE_DURATION

    async def let_the_other_go() -> None:
        await asyncio.sleep(0)

    bed.api.pause = let_the_other_go
    await asyncio.gather(bed.b.attempt(), c.attempt(), return_exceptions=True)
    assert bed.b.is_leader() != c.is_leader()


async def test_no_error_of_the_api_server_ends_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    bed = Bed()
    errors = iter([Unavailable("connection refused"), ValueError("no JSON"), KeyError("spec")])
    attempts = 0

    async def get(*_: object, **__: object) -> kube.Document:
        nonlocal attempts
        attempts += 1
        raise next(errors, Unavailable("still down"))

    async def no_wait(_: float) -> None:
        if attempts >= 5:
            raise asyncio.CancelledError

    monkeypatch.setattr(bed.api, "get", get)
    monkeypatch.setattr("sluice_operator.shell.leader.asyncio.sleep", no_wait)
    with pytest.raises(asyncio.CancelledError):
        await bed.a.run()
    assert attempts == 5
    assert not bed.a.is_leader()


async def test_a_term_that_ends_between_two_attempts_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    bed = Bed()
    told: list[bool] = []

    async def sleep_too_long(_: float) -> None:
        told.append(bed.a.changed.is_set())
        bed.a.changed.clear()
        if len(told) == 2:
            raise asyncio.CancelledError
        bed.clock.now += LEASE_DURATION

        async def down(*_: object, **__: object) -> kube.Document:
            assert bed.a.changed.is_set(), "the end of the term was not told of"
            raise Unavailable("down")

        monkeypatch.setattr(bed.api, "get", down)

    monkeypatch.setattr("sluice_operator.shell.leader.asyncio.sleep", sleep_too_long)
    with pytest.raises(asyncio.CancelledError):
        await bed.a.run()
    assert told == [True, True]
