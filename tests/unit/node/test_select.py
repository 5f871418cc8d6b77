"""Each pod belongs to the policy that the rules say, whatever the order of things."""

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_node.core.objects import Key, Pod, Policy, Requirement, Selector
from sluice_node.core.select import matches, precedence, select, selects

EVERYTHING = Selector()
POD = Pod(Key("ns", "pod"), "2026-01-01T00:00:00Z", {"app": "x"}, "default", (ip_address("10.0.0.1"),))
POLICY = Policy(Key("ns", "a"), 1, "2026-01-01T00:00:00Z", "pool", EVERYTHING)


@pytest.mark.parametrize(
    ("operator", "values", "labels", "expected"),
    [
        ("In", {"a", "b"}, {"k": "a"}, True),
        ("In", {"a", "b"}, {"k": "c"}, False),
        ("In", {"a"}, {}, False),
        ("NotIn", {"a"}, {"k": "a"}, False),
        ("NotIn", {"a"}, {"k": "b"}, True),
        ("NotIn", {"a"}, {}, True),
        ("Exists", set(), {"k": ""}, True),
        ("Exists", set(), {"j": "a"}, False),
        ("DoesNotExist", set(), {"k": "a"}, False),
        ("DoesNotExist", set(), {}, True),
    ],
)
def test_a_requirement_means_what_kubernetes_says(
    operator: str, values: set[str], labels: dict[str, str], expected: bool
) -> None:
    requirement = Requirement("k", operator, frozenset(values))  # type: ignore[arg-type]
    assert matches(Selector(requirements=(requirement,)), labels) is expected


_LABELS = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xy"), max_size=3)
_REQUIREMENTS = st.one_of(
    st.builds(
        Requirement,
        st.sampled_from("abc"),
        st.sampled_from(["In", "NotIn"]),
        st.frozensets(st.sampled_from("xy"), min_size=1),
    ),
    st.builds(Requirement, st.sampled_from("abc"), st.sampled_from(["Exists", "DoesNotExist"])),
)
_SELECTORS = st.builds(
    Selector, _LABELS.map(lambda labels: tuple(labels.items())), st.lists(_REQUIREMENTS, max_size=3).map(tuple)
)


@given(selector=_SELECTORS, labels=_LABELS)
def test_a_selector_is_the_conjunction_of_its_parts(selector: Selector, labels: dict[str, str]) -> None:
    parts = [Selector(labels=(pair,)) for pair in selector.labels]
    parts += [Selector(requirements=(requirement,)) for requirement in selector.requirements]
    assert matches(selector, labels) == all(matches(part, labels) for part in parts)


@given(key=st.sampled_from("abc"), values=st.frozensets(st.sampled_from("xy"), min_size=1), labels=_LABELS)
def test_an_operator_and_its_opposite_never_agree(key: str, values: frozenset[str], labels: dict[str, str]) -> None:
    for one, other in (("In", "NotIn"), ("Exists", "DoesNotExist")):
        both = [Selector(requirements=(Requirement(key, op, values),)) for op in (one, other)]  # type: ignore[arg-type]
        assert matches(both[0], labels) != matches(both[1], labels)


@pytest.mark.parametrize(
    ("pod", "why"),
    [
        (replace(POD, host_network=True), "its packets bear the node's address"),
        (replace(POD, finished=True), "its address may be another's"),
        (replace(POD, addresses=()), "it has no address"),
        (replace(POD, key=Key("other", "pod")), "a policy is of its namespace"),
    ],
)
def test_some_pods_are_never_selected(pod: Pod, why: str) -> None:
    assert select([pod], [POLICY]).pods == {}, why


def test_a_terminating_pod_stays_selected() -> None:
    assert select([replace(POD, terminating=True)], [POLICY]).pods == {POLICY.key: 1}


def test_service_accounts_narrow_a_policy() -> None:
    robots = replace(POLICY, service_accounts=frozenset({"robot"}))
    assert select([POD], [robots]).pods == {}
    assert select([replace(POD, service_account="robot")], [robots]).pods == {robots.key: 1}


OLDER, YOUNGER = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


@pytest.mark.parametrize(
    ("winner", "loser"),
    [
        (
            replace(POLICY, key=Key("ns", "z"), created=YOUNGER, priority=1),
            replace(POLICY, key=Key("ns", "a"), created=OLDER, priority=0),
        ),
        (
            replace(POLICY, key=Key("ns", "z"), created=OLDER),
            replace(POLICY, key=Key("ns", "a"), created=YOUNGER),
        ),
        (replace(POLICY, key=Key("ns", "a")), replace(POLICY, key=Key("ns", "z"))),
    ],
    ids=["higher priority", "older", "name"],
)
def test_of_two_policies_one_wins_and_the_other_counts_the_pod_as_overridden(winner: Policy, loser: Policy) -> None:
    for order in ([winner, loser], [loser, winner]):
        selection = select([POD], order)
        assert selection.addresses == {winner.key: POD.addresses}
        assert (selection.pods[winner.key], selection.overridden[winner.key]) == (1, 0)
        assert (selection.pods[loser.key], selection.overridden[loser.key]) == (0, 1)


def test_an_address_given_to_a_new_pod_is_no_longer_the_old_ones() -> None:
    old = replace(POD, key=Key("ns", "old"), terminating=True)
    new = replace(POD, key=Key("ns", "new"), labels={}, created=YOUNGER)
    only_old = replace(POLICY, selector=Selector(labels=(("app", "x"),)))
    assert select([old, new], [only_old]).addresses == {}
    assert select([old], [only_old]).addresses == {only_old.key: POD.addresses}


_PODS = st.lists(
    st.builds(
        Pod,
        st.builds(Key, st.sampled_from(["n", "m"]), st.text("abcdef", min_size=1, max_size=3)),
        st.sampled_from([OLDER, YOUNGER]),
        _LABELS,
        st.sampled_from(["default", "robot"]),
        st.lists(st.integers(1, 9).map(lambda n: ip_address(f"10.0.0.{n}")), max_size=2, unique=True).map(tuple),
        st.booleans(),
        st.booleans(),
        st.booleans(),
    ),
    unique_by=lambda pod: pod.key,
    max_size=6,
)
_POLICIES = st.lists(
    st.builds(
        Policy,
        st.builds(Key, st.sampled_from(["n", "m"]), st.text("abc", min_size=1, max_size=2)),
        st.just(1),
        st.sampled_from([OLDER, YOUNGER]),
        st.just("pool"),
        _SELECTORS,
        st.frozensets(st.sampled_from(["robot"])),
        priority=st.integers(0, 1),
    ),
    unique_by=lambda policy: policy.key,
    max_size=5,
)


@given(pods=_PODS, policies=_POLICIES, data=st.data())
def test_no_address_is_of_two_policies_and_order_does_not_matter(
    pods: list[Pod], policies: list[Policy], data: st.DataObject
) -> None:
    selection = select(pods, policies)
    given_out = [address for own in selection.addresses.values() for address in own]
    assert len(given_out) == len(set(given_out))
    assert select(data.draw(st.permutations(pods)), data.draw(st.permutations(policies))) == selection


@given(pods=_PODS, policies=_POLICIES)
def test_every_pod_goes_to_the_first_policy_that_selects_it(pods: list[Pod], policies: list[Policy]) -> None:
    for pod in pods:
        eligible = bool(pod.addresses) and not (pod.host_network or pod.finished)
        rivals = sorted((policy for policy in policies if selects(policy, pod)), key=precedence) if eligible else []
        won = {key for key, count in select([pod], policies).pods.items() if count}
        assert won == {policy.key for policy in rivals[:1]}
