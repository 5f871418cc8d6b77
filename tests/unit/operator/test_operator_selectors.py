"""A selector that can never select anything is told apart from one that selects nothing at the moment."""

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.operator.operator_fakes import FakeOperator, World, settle

from sluice_operator.core.project import policy, pool, selector
from sluice_operator.core.selectors import contradictions
from sluice_operator.shell import kube


def _expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": operator} | ({"values": list(values)} if values else {})


IMPOSSIBLE = {
    "another value than the label's": ({"app": "a"}, [_expression("app", "In", "b", "c")]),
    "the very value that is excluded": ({"app": "a"}, [_expression("app", "NotIn", "a")]),
    "there and not there": ({}, [_expression("app", "Exists"), _expression("app", "DoesNotExist")]),
    "a value of a label that is not there": ({"app": "a"}, [_expression("app", "DoesNotExist")]),
    "two sets without a common value": ({}, [_expression("app", "In", "a", "b"), _expression("app", "In", "c")]),
    "every value excluded": ({}, [_expression("app", "In", "a", "b"), _expression("app", "NotIn", "b", "a")]),
}
POSSIBLE = {
    "everything": ({}, []),
    "a value among several": ({"app": "a"}, [_expression("app", "In", "a", "b")]),
    "one value left": ({}, [_expression("app", "In", "a", "b"), _expression("app", "NotIn", "a")]),
    "excluded or not there": ({}, [_expression("app", "NotIn", "a"), _expression("app", "DoesNotExist")]),
    "different labels": ({"app": "a"}, [_expression("tier", "DoesNotExist")]),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_a_contradiction_names_the_field_and_everything_that_is_said_of_the_label(name: str) -> None:
    labels, expressions = IMPOSSIBLE[name]
    (found,) = contradictions({"matchLabels": labels, "matchExpressions": expressions}, field="spec.podSelector")
    assert found.startswith("spec.podSelector: nothing can have app")
    assert found.endswith("correct what it says of label app")
    assert all(entry["operator"] in found for entry in expressions)


@pytest.mark.parametrize("name", POSSIBLE)
def test_what_may_select_something_some_day_is_no_contradiction(name: str) -> None:
    labels, expressions = POSSIBLE[name]
    assert not list(contradictions({"matchLabels": labels, "matchExpressions": expressions}, field="f"))


VALUES = ("a", "b")
ENTRIES = st.one_of(
    st.builds(lambda operator, values: _expression("app", operator, *values), st.sampled_from(["In", "NotIn"]),
              st.sets(st.sampled_from(VALUES), min_size=1).map(sorted)),
    st.sampled_from([_expression("app", "Exists"), _expression("app", "DoesNotExist")]),
)  # fmt: skip


@given(st.lists(ENTRIES, max_size=4), st.sampled_from([{}, {"app": "a"}, {"app": "b"}]))
def test_it_is_a_contradiction_exactly_when_no_object_at_all_is_selected(
    expressions: list[dict[str, Any]], labels: dict[str, str]
) -> None:
    document = {"matchLabels": labels, "matchExpressions": expressions}
    objects = [{}, *({"app": value} for value in (*VALUES, "another"))]
    selects = any(selector(document).matches(one) for one in objects)
    assert bool(list(contradictions(document, field="f"))) is not selects


@pytest.mark.parametrize("broken", [None, {}, {"matchLabels": None}, {"matchExpressions": [{}]}, [], "x"])
def test_what_another_client_wrote_never_raises(broken: object) -> None:
    assert not list(contradictions(broken, field="f"))


def test_both_selectors_of_the_api_are_looked_at() -> None:
    impossible = [{"matchLabels": labels, "matchExpressions": found} for labels, found in IMPOSSIBLE.values()]
    for document, metadata in product(impossible, [{"name": "n", "namespace": "a"}]):
        assert "spec.podSelector" in policy({"metadata": metadata, "spec": {"podSelector": document}}).problems[0]
        assert "spec.namespaces" in pool({"metadata": metadata, "spec": {"namespaces": document}}).problems[0]


async def test_a_slip_in_an_older_pools_selector_gives_its_addresses_to_nobody_else() -> None:
    world = World()
    operator = FakeOperator(world.api)
    await operator.start()
    world.namespace("a")
    world.node("n1", gateway_for=["p"])
    world.pool("p", ["198.51.100.16/29"])
    await settle(world, operator)
    labels, expressions = IMPOSSIBLE["there and not there"]
    world.pool("p", ["198.51.100.16/29"], namespaces={"matchLabels": labels, "matchExpressions": expressions})
    world.pool("q", ["198.51.100.18"])
    await settle(world, operator)
    reasons = {
        name: next(c["reason"] for c in pool["status"]["conditions"] if c["type"] == "Accepted")
        for name, pool in world.api.named(kube.EGRESS_POOL).items()
    }
    assert reasons == {"p": "InvalidSpec", "q": "OverlapsPool"}
