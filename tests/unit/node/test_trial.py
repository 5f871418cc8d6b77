"""What a node took into use just before it lost the API server is taken back; an outage changes nothing."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.node.desired_nodes import NODE, V4, V6

from sluice_api.timers import RETRIAL, TRIAL, TRIAL_CHECK, TRIAL_PATIENCE
from sluice_node.core.desired import SliceOwner
from sluice_node.core.objects import EgressIP, Key
from sluice_node.core.trial import CHECKS, Claim, Trial, additions

POLICY = Key("ns", "a")
EGRESS_IP = EgressIP(Key("", str(V4)), V4, "partners", POLICY)
A = Claim(V4, "partners", POLICY)
B = Claim(V6, "partners", POLICY)
ALWAYS: Callable[[float], bool] = lambda now: True  # noqa: E731


class Life:
    """Virtual time in which checks are made when they are due. `in_reach` says when the API server answers, given the
    time and what is withheld."""

    def __init__(self, in_reach: Callable[[float, set[Claim]], bool]) -> None:
        self.trial = Trial()
        self.now = 0.0
        self.used: set[Claim] = set()
        self.checks: list[float] = []
        self._in_reach = in_reach

    def use(self, *claims: Claim, answered: bool = True) -> None:
        """The apply that adds claims, unless they are withheld."""
        new = [claim for claim in claims if claim.address not in self.trial.withheld]
        self.used |= set(new)
        self.trial.applied(new, now=self.now, in_reach=answered)

    def until(self, end: float) -> None:
        """Let time pass."""
        while (due := self.trial.check()) is not None and max(due, self.now) <= end:
            self.now = max(due, self.now)
            self.checks.append(self.now)
            before = dict(self.trial.withheld)
            changed = self.trial.checked(now=self.now, in_reach=self._in_reach(self.now, self.used))
            assert changed is (before != self.trial.withheld), "a change of what is withheld is told"
            if changed:
                everything = {A, B}
                self.used -= {claim for claim in everything if claim.address in self.withheld()}
                self.use(*(c for c in everything if c.address in before and c.address not in self.withheld()))
        self.now = end

    def withheld(self) -> set[object]:
        return set(self.trial.withheld)


def test_a_claim_after_which_the_api_server_answers_is_kept_and_no_more_checked() -> None:
    life = Life(lambda now, used: True)
    life.use(A)
    life.until(1000)
    assert life.withheld() == set()
    assert life.used == {A}
    assert len(life.checks) <= 4, "few questions for each new claim"
    assert life.checks[-1] >= TRIAL


def test_a_claim_that_cuts_off_the_api_server_is_taken_back_in_time() -> None:
    life = Life(lambda now, used: A not in used)
    life.use(A)
    life.until(TRIAL - 0.5)
    assert life.withheld() == set()
    life.until(TRIAL + 0.5)
    assert life.withheld() == {V4}
    assert "API server went out of reach" in life.trial.withheld[V4]
    life.until(RETRIAL)
    assert life.withheld() == {V4}


def test_what_cut_it_off_twice_is_left_alone_until_it_is_another_claim() -> None:
    life = Life(lambda now, used: A not in used)
    life.use(A)
    life.until(RETRIAL + 3 * TRIAL)
    assert life.withheld() == {V4}
    assert "twice" in life.trial.withheld[V4]
    assert life.trial.check() is None, "nothing is found out any more"
    life.until(1e6)
    assert life.withheld() == {V4}
    life.trial.remember([EGRESS_IP])
    assert life.withheld() == {V4}
    life.trial.remember([replace(EGRESS_IP, policy=Key("ns", "other"))])
    assert life.withheld() == set()


def test_of_two_that_came_together_the_one_that_did_no_harm_comes_back() -> None:
    life = Life(lambda now, used: A not in used)
    life.use(B, A)
    life.until(TRIAL + 1)
    assert life.withheld() == {V4, V6}
    life.until(10 * RETRIAL)
    assert life.withheld() == {V4}
    assert life.used == {B}


def test_an_outage_that_begins_just_after_a_claim_takes_it_back_for_a_moment_only() -> None:
    """Whether it lasts, and the claim is used again meanwhile, or ends, and it is tried again after that."""
    lasting = Life(lambda now, used: now < 1)
    lasting.use(A)
    lasting.until(TRIAL + 1)
    assert lasting.withheld() == {V4}
    lasting.until(TRIAL + TRIAL_PATIENCE + 2)
    assert (lasting.withheld(), lasting.used) == (set(), {A})
    lasting.until(1000)
    assert (lasting.withheld(), lasting.used) == (set(), {A}), "it is not suspected again"
    short = Life(lambda now, used: not 1 < now < 15)
    short.use(A)
    short.until(16)
    assert short.withheld() == {V4}
    short.until(16 + RETRIAL + TRIAL)
    assert (short.withheld(), short.used) == (set(), {A})


@pytest.mark.parametrize("begins", [TRIAL + 0.1, 60, 3600])
def test_an_outage_for_everybody_changes_nothing(begins: float) -> None:
    life = Life(lambda now, used: now < begins)
    life.use(A)
    life.until(1e5)
    assert (life.withheld(), life.used) == (set(), {A})


def test_what_is_added_while_the_api_server_is_away_is_not_suspected() -> None:
    life = Life(lambda now, used: False)
    life.use(A, answered=False)
    life.until(1e5)
    assert (life.withheld(), life.checks) == (set(), [])


def test_what_is_added_while_another_claim_is_suspected_is_not() -> None:
    life = Life(lambda now, used: A not in used)
    life.use(A)
    life.until(TRIAL - 1.5)
    life.use(B)
    life.until(TRIAL + 1)
    assert life.withheld() == {V4}


def test_a_pause_of_the_api_server_shorter_than_the_checks_takes_nothing_back() -> None:
    for start in (1.0, 2.5, 3.5, 4.5):
        pause = (start, start + (CHECKS - 1) * TRIAL_CHECK - 0.1)
        life = Life(lambda now, used, pause=pause: not pause[0] < now < pause[1])  # type: ignore[misc]
        life.use(A)
        life.until(100)
        assert (life.withheld(), life.used) == (set(), {A})


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 50), st.sampled_from([A, B]), st.booleans()), max_size=6))
def test_whatever_is_added_in_the_end_only_what_does_harm_is_withheld(steps: list[tuple[float, Claim, bool]]) -> None:
    life = Life(lambda now, used: A not in used)
    for at, claim, answered in sorted(steps, key=lambda step: step[0]):
        life.until(at)
        life.use(claim, answered=answered)
    life.until(20 * RETRIAL)
    assert B.address not in life.withheld()


class TestAdditions:
    """What of an apply is new."""

    CLAIMS = {V4: EGRESS_IP, V6: replace(EGRESS_IP, key=Key("", str(V6)), address=V6)}  # noqa: RUF012
    WITHOUT = replace(NODE, slices=(), policies=())

    def test_slices_and_policies_of_an_address_that_was_not_there(self) -> None:
        assert additions(self.WITHOUT, NODE, self.CLAIMS, held=frozenset()) == {A, B}
        assert additions(NODE, NODE, self.CLAIMS, held=frozenset()) == frozenset()
        assert additions(NODE, self.WITHOUT, self.CLAIMS, held=frozenset()) == frozenset()

    def test_further_slices_and_pods_are_not_new(self) -> None:
        more = replace(
            NODE,
            slices=(*NODE.slices, SliceOwner(V4, 20480, 1024, "n3")),
            pods={**NODE.pods, ip_address("10.244.1.99"): 5},
        )
        assert additions(NODE, more, self.CLAIMS, held=frozenset()) == frozenset()

    def test_being_the_first_to_answer_is_new_and_a_take_over_is_not(self) -> None:
        holding = replace(NODE, announced={V4: "eth0"})
        assert additions(NODE, holding, self.CLAIMS, held=frozenset()) == {A}
        taken_over = {**self.CLAIMS, V4: replace(EGRESS_IP, holder="n3")}
        assert additions(NODE, holding, taken_over, held=frozenset()) == frozenset()

    def test_after_a_start_what_the_kernel_knew_is_not_new(self) -> None:
        assert additions(None, NODE, self.CLAIMS, held=frozenset({V4})) == {B}
        assert additions(None, NODE, self.CLAIMS, held=frozenset({V4, V6})) == frozenset()
