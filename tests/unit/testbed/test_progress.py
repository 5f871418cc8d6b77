"""What long work says of itself: which of how many, how long so far, how long yet."""

import io

import pytest
from rich.console import Console

from testbed.progress import Progress, remaining, spoken

EXPECTED = {"a": 100.0, "b": 50.0, "c": 50.0}


def test_before_anything_is_known_the_rest_is_as_expected() -> None:
    assert remaining(EXPECTED, {}, {}) == 200
    assert remaining(EXPECTED, {}, {"a": 30}) == 170


def test_a_slow_machine_makes_the_rest_longer_in_proportion() -> None:
    assert remaining(EXPECTED, {"a": 300}, {}) == 300
    assert remaining(EXPECTED, {"a": 300}, {"b": 100}) == 200


def test_a_step_that_takes_longer_than_expected_never_makes_the_rest_negative() -> None:
    assert remaining(EXPECTED, {}, {"a": 1000}) == 100
    assert remaining(EXPECTED, {"a": 100, "b": 50, "c": 50}, {}) == 0


def test_one_small_step_says_nothing_about_the_machine() -> None:
    assert remaining({"a": 1.0, "b": 100.0}, {"a": 20}, {}) == 100


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (600, "10 min")])
def test_durations_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert spoken(seconds) == text


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_without_a_terminal_there_is_one_line_for_each_step() -> None:
    out, clock = io.StringIO(), Clock()
    progress = Progress("preparing", {"x": EXPECTED, "y": {"d": 10.0}}, Console(file=out, width=200), clock)
    with progress.shown():
        for step, seconds in (("a", 200.0), ("d", 10.0)):
            with progress.step(step):
                clock.now += seconds
    assert out.getvalue().splitlines() == [
        "preparing: a: 3 min (1 of 4, 3 min so far, about 3 min left)",
        "preparing: d: 10 s (2 of 4, 4 min so far, about 3 min left)",
    ]


def test_the_live_line_names_what_runs() -> None:
    clock = Clock()
    progress = Progress("preparing", {"x": EXPECTED}, Console(file=io.StringIO(), width=200), clock)
    with progress.step("a"):
        clock.now += 40
        assert progress.line() == "preparing: a (0 of 3, 40 s so far, about 3 min left)"


def test_a_step_that_fails_is_not_counted() -> None:
    out = io.StringIO()
    progress = Progress("preparing", {"x": EXPECTED}, Console(file=out), Clock())
    with pytest.raises(ValueError, match="no"), progress.step("a"):
        raise ValueError("no")
    assert out.getvalue() == ""
    assert "0 of 3" in progress.line()
