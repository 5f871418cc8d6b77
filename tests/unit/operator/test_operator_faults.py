"""Whatever goes wrong in between, the operator ends where it would have ended, and nothing is ever given twice.

Each scenario runs undisturbed once; then once for every write it made, dying right after it; once for every event,
losing it; with a view that lags one step behind; and with two leaders whose requests interleave. The fake API server
audits addresses, slices and ids after each write.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.operator.operator_fakes import Crash, FakeOperator, World, interleaving, settle
from tests.unit.operator.operator_scenarios import SCENARIOS, Step

SEEDS = 10


async def _undisturbed(steps: tuple[Step, ...]) -> World:
    world = World()
    operator = FakeOperator(world.api)
    await operator.start()
    for step in steps:
        step(world)
        await settle(world, operator)
    return world


def _ids(world: World) -> list[int]:
    return [policy["status"]["id"] for key, policy in world.api.objects.items() if key[0] == "egresspolicies"]


@pytest.mark.parametrize("name", SCENARIOS)
async def test_rest_means_an_empty_plan(name: str) -> None:
    world = await _undisturbed(SCENARIOS[name])
    writes = world.api.writes
    fresh = FakeOperator(world.api)
    await fresh.start()
    assert await fresh.reconciler.reconcile()
    assert world.api.writes == writes


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_crash_after_any_write_changes_nothing_in_the_end(
    name: str, record_property: Callable[[str, Any], None]
) -> None:
    reference = await _undisturbed(SCENARIOS[name])
    for fatal in range(1, reference.api.writes + 1):
        world = World()
        world.api.crash_after = fatal
        operator = FakeOperator(world.api)
        await operator.start()
        for step in SCENARIOS[name]:
            step(world)
            try:
                await settle(world, operator)
            except Crash:
                operator = FakeOperator(world.api)
                await operator.start()
                await settle(world, operator)
        assert world.state() == reference.state(), f"crash after write {fatal}"
        assert len(set(_ids(world))) == len(_ids(world))
    record_property("crashes", reference.api.writes)
    print(f"{name}: {reference.api.writes} crashes")


@pytest.mark.parametrize("name", SCENARIOS)
async def test_losing_any_event_changes_nothing_in_the_end(
    name: str, record_property: Callable[[str, Any], None]
) -> None:
    reference = await _undisturbed(SCENARIOS[name])
    events = len(reference.api.events)
    for lost in range(events):
        world = World()
        operator = FakeOperator(world.api)
        await operator.start()
        for step in SCENARIOS[name]:
            step(world)
            await settle(world, operator, drop=lambda number, lost=lost: number == lost)  # type: ignore[misc]
            await operator.relist()
            await settle(world, operator)
        assert world.state() == reference.state(), f"event {lost} was lost: {world.api.events[lost]}"
    record_property("events", events)
    print(f"{name}: {events} events lost")


@pytest.mark.parametrize("name", SCENARIOS)
async def test_acting_on_a_stale_view_gives_nothing_twice_and_ends_the_same(name: str) -> None:
    reference = await _undisturbed(SCENARIOS[name])
    world = World()
    operator = FakeOperator(world.api)
    await operator.start()
    for step in SCENARIOS[name]:
        step(world)
        world.agents()
        await operator.reconciler.reconcile()
        await settle(world, operator)
    assert world.state() == reference.state()


@pytest.mark.parametrize("name", SCENARIOS)
async def test_two_leaders_at_once_give_nothing_twice_and_end_the_same(name: str) -> None:
    reference = await _undisturbed(SCENARIOS[name])
    conflicts = 0
    for seed in range(SEEDS):
        world = World()
        operators = (FakeOperator(world.api), FakeOperator(world.api))
        for operator in operators:
            await operator.start()
        for step in SCENARIOS[name]:
            step(world)
            for operator in operators:
                operator.pump()
            world.api.pause = interleaving(seed)
            await asyncio.gather(*(operator.reconciler.reconcile() for operator in operators))
            world.api.pause = None
            await settle(world, operators[seed % 2])
        assert world.state() == reference.state(), f"seed {seed}"
        conflicts += world.api.counted["conflict"]
    print(f"{name}: {SEEDS} interleavings, {conflicts} conflicts")
