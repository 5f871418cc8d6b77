"""A gateway is dead after three lost probes and alive after three answered ones, on any schedule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_node.core.liveness import ALIVE_AFTER, DEAD_AFTER, Liveness

MAC = "02:65:00:00:00:01"


def machine() -> Liveness:
    liveness = Liveness()
    liveness.follow([MAC])
    return liveness


def run(liveness: Liveness, answers: str) -> str:
    """One probe for each character, answered before the next ('+') or not ('-'); gives the state after each tick's
    judgement: alive ('A') or not ('.')."""
    states = ""
    for answer in answers:
        (probe,), _ = liveness.tick()
        if answer == "+":
            liveness.hear(probe[0], sequence=probe[1], rtt=0.001)
        states += "A" if liveness.sights()[MAC].alive else "."
    return states


def test_the_first_echo_proves_life() -> None:
    assert run(machine(), "-+") == ".A"


def test_two_lost_probes_are_forgiven_and_three_are_not() -> None:
    assert run(machine(), "+--+--+---+") == "AAAAAAAAAA."


def test_a_dead_gateway_must_answer_three_in_a_row() -> None:
    assert run(machine(), "+----++-+++") == "AAAA......A"


def test_a_gateway_that_never_answers_is_judged_too() -> None:
    liveness = machine()
    assert not liveness.settled
    run(liveness, "---")
    assert not liveness.settled
    _, died = liveness.tick()
    assert died == {MAC}
    assert liveness.settled


def test_death_is_told_once() -> None:
    liveness = machine()
    run(liveness, "+")
    deaths = [liveness.tick()[1] for _ in range(10)]
    assert deaths.count(frozenset({MAC})) == 1


def test_a_path_slower_than_the_interval_is_alive() -> None:
    liveness = machine()
    sent: list[int] = []
    for _ in range(20):
        (probe,), died = liveness.tick()
        assert not died
        sent.append(probe[1])
        if len(sent) > 2:
            liveness.hear(MAC, sequence=sent[-3], rtt=0.25)
    assert liveness.sights()[MAC].alive


def test_a_stopped_agent_condemns_nobody() -> None:
    liveness = machine()
    assert run(liveness, "+") == "A"
    # However long the pause: only one probe is out when the next tick judges.
    _, died = liveness.tick()
    assert not died
    assert liveness.sights()[MAC].alive


def test_echoes_of_unsent_or_old_probes_prove_nothing() -> None:
    liveness = machine()
    (probe,), _ = liveness.tick()
    assert not liveness.hear(MAC, sequence=probe[1] + 1, rtt=0.001)
    assert not liveness.hear("02:65:00:00:00:99", sequence=1, rtt=0.001)
    assert liveness.hear(MAC, sequence=probe[1], rtt=0.001)
    assert not liveness.hear(MAC, sequence=probe[1], rtt=0.001)


def test_what_is_known_of_a_gateway_outlives_a_change_of_the_others() -> None:
    liveness = machine()
    run(liveness, "+")
    liveness.follow([MAC, "02:65:00:00:00:02"])
    assert liveness.sights()[MAC].alive
    assert not liveness.settled
    liveness.follow(["02:65:00:00:00:02"])
    assert MAC not in liveness.sights()


def test_the_round_trip_is_smoothed() -> None:
    liveness = machine()
    for rtt in (0.008, 0.016):
        (probe,), _ = liveness.tick()
        liveness.hear(MAC, sequence=probe[1], rtt=rtt)
    assert liveness.sights()[MAC].rtt == pytest.approx(0.009)


@given(answers=st.text("+-", max_size=60))
def test_the_state_follows_the_last_row_of_answers(answers: str) -> None:
    """An oracle that reads the whole history: a row of losses kills when the next probe is due, a row of echoes
    revives at once."""
    states = run(machine(), answers)
    alive, ever = False, False
    for index in range(len(answers)):
        before = answers[:index]
        if before.endswith("-" * DEAD_AFTER):
            alive, ever = False, True
        if answers[index] == "+":
            now = answers[: index + 1]
            known_dead = ever and not alive
            alive = alive or not known_dead or now.endswith("+" * ALIVE_AFTER)
            ever = True
        assert states[index] == ("A" if alive else "."), (answers, index)
