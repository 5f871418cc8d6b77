"""Lengths of time in specs: one form, and what is not of it is refused rather than guessed."""

import pytest

from sluice_api import durations, timers
from sluice_api.models.pool import PoolSpec


@pytest.mark.parametrize(
    ("text", "seconds"), [("0s", 0), ("45s", 45), ("90m", 5400), ("1h", 3600), ("1h30m", 5400), ("24h0m1s", 86401)]
)
def test_hours_minutes_and_seconds_add_up(text: str, seconds: int) -> None:
    assert durations.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "h", "1d", "-1h", "1.5h", "30m1h", "1h 30m", "1H", "\u0661h", "1h\n"])
def test_anything_else_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(ValueError, match="1h30m"):
        durations.seconds(text)


def test_the_default_of_the_schema_is_the_timer() -> None:
    assert durations.seconds(PoolSpec.model_fields["quarantine"].default) == timers.QUARANTINE
