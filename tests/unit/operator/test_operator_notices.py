"""Events: one for each transition that matters to a person, none for the rest."""

import pytest

from sluice_operator.core import notices
from sluice_operator.core.snapshot import Condition, Policy, PolicyKey, PolicyStatus


def _ready(status: str, reason: str, message: str = "") -> Condition:
    return Condition("Ready", status, reason, message, 1, "t")


def _policy(before: Condition) -> Policy:
    return Policy(PolicyKey("a", "one"), "uid", 1, "2026", "p", status=PolicyStatus(conditions=(before,)))


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (_ready("Unknown", "Pending"), _ready("False", "PoolExhausted", "full"), ("Warning", "PoolExhausted", "full")),
        (_ready("False", "WaitingForNodes"), _ready("True", "Ready"), ("Normal", "Ready", None)),
        (_ready("True", "Ready"), _ready("False", "NoGatewayReady", "none"), ("Warning", "NoGatewayReady", "none")),
        (_ready("True", "Ready"), _ready("True", "Overridden", "two pods"), ("Normal", "Overridden", "two pods")),
        (_ready("Unknown", "Pending"), _ready("False", "WaitingForNodes", "n1"), None),
        (_ready("False", "PoolExhausted", "2 of 2"), _ready("False", "PoolExhausted", "3 of 3"), None),
        (_ready("True", "Ready"), _ready("True", "Ready", "more words"), None),
        (_ready("True", "Ready"), _ready("Unknown", "AgentSilent", "n1"), None),
        (_ready("Unknown", "AgentSilent", "n1"), _ready("True", "Ready"), None),
        (
            _ready("Unknown", "AgentSilent"),
            _ready("False", "PoolExhausted", "full"),
            ("Warning", "PoolExhausted", "full"),
        ),
    ],
)
def test_a_transition_is_told_once_in_the_words_of_its_condition(
    before: Condition, after: Condition, told: tuple[str, str, str | None] | None
) -> None:
    found = notices.of_policy(_policy(before), (after,))
    if told is None:
        assert not found
        return
    severity, reason, message = told
    assert [(notice.severity, notice.reason) for notice in found] == [(severity, reason)]
    assert found[0].message == message or (message is None and found[0].message)
    assert (found[0].namespace, found[0].name, found[0].uid) == ("a", "one", "uid")
