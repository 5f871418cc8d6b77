"""Policy ids and port slices: nothing twice, nothing moved without need."""

from hypothesis import given
from hypothesis import strategies as st

from sluice_api.names import POLICY_ID_MAX
from sluice_operator.core import ids, ports
from sluice_operator.core.snapshot import Policy, PolicyKey, PolicyStatus, Slice


def _policy(name: str, number: int | None, *, created: str = "2026") -> Policy:
    return Policy(PolicyKey("a", name), "u", 1, created, "p", status=PolicyStatus(id=number))


def test_new_ids_follow_the_counter_and_skip_those_in_use() -> None:
    policies = [_policy("a", None), _policy("b", 8), _policy("c", None)]
    given_ids = ids.assign(policies, last=6)
    assert dict(given_ids.ids) == {policies[0].key: 7, policies[1].key: 8, policies[2].key: 9}
    assert given_ids.last == 9


def test_the_counter_goes_round_at_the_end() -> None:
    assert ids.assign([_policy("a", None)], last=POLICY_ID_MAX).ids[PolicyKey("a", "a")] == 1


def test_a_lost_counter_goes_on_after_the_highest_id_in_use() -> None:
    assert ids.assign([_policy("a", 40), _policy("b", None)], last=0).ids[PolicyKey("a", "b")] == 41


def test_of_two_policies_with_one_id_the_older_keeps_it() -> None:
    assigned = ids.assign([_policy("young", 5, created="2026"), _policy("old", 5, created="2025")], last=9)
    assert assigned.ids[PolicyKey("a", "old")] == 5
    assert assigned.ids[PolicyKey("a", "young")] == 10


def test_when_ids_run_out_the_rest_get_none() -> None:
    policies = [_policy(f"p{number}", number) for number in range(1, POLICY_ID_MAX + 1)]
    assigned = ids.assign([*policies, _policy("late", None)], last=3)
    assert PolicyKey("a", "late") not in assigned.ids
    assert not assigned.drawn


NODES = st.lists(st.sampled_from([f"n{number}" for number in range(9)]), unique=True)


@given(before=NODES, after=NODES, size=st.sampled_from([8192, 16384]))
def test_slices_stay_with_their_nodes_and_are_never_shared(before: list[str], after: list[str], size: int) -> None:
    first, _ = ports.assign((), before, size=size)
    second, unserved = ports.assign(first, after, size=size)
    assert len({entry.first for entry in second}) == len(second)
    assert {entry.node for entry in second} | set(unserved) == set(after)
    kept = {entry for entry in first if entry.node in after}
    assert kept <= set(second)
    assert len(second) == min(len(after), len(ports.blocks(size)))
    assert ports.assign(second, after, size=size) == (second, unserved)


@given(st.lists(st.builds(Slice, NODES.map(lambda n: (n or ["x"])[0]), st.integers(0, 65535), st.integers(0, 65535))))
def test_any_garbage_in_a_status_becomes_a_valid_assignment(held: list[Slice]) -> None:
    slices, unserved = ports.assign(tuple(held), ["n1", "n2"], size=16384)
    assert {entry.node for entry in slices} == {"n1", "n2"}
    assert not unserved
    assert all((entry.first, entry.last) in ports.blocks(16384) for entry in slices)


def test_another_slice_size_gives_every_node_a_new_slice() -> None:
    held = (Slice("n1", 1024, 2047),)
    assert ports.assign(held, ["n1"], size=2048) == ((Slice("n1", 2048, 4095),), ())
