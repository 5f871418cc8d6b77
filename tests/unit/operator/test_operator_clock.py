"""The operator's clock goes no faster than time does."""

from sluice_operator.core.times import seconds
from sluice_operator.shell.clock import Clock


class Hands:
    """A wall clock and the time since boot, as the test sets them."""

    def __init__(self) -> None:
        self.wall, self.steady = 1767268800.0, 50.0
        self.clock = Clock(wall=lambda: self.wall, steady=lambda: self.steady)
        self.began = self.told()

    def told(self) -> int:
        found = seconds(self.clock())
        assert found is not None
        return found

    def passed(self) -> int:
        return self.told() - self.began


def test_it_goes_as_time_does() -> None:
    hands = Hands()
    hands.wall += 100
    hands.steady += 100
    assert hands.passed() == 100


def test_a_wall_clock_that_is_set_forward_ends_no_rest() -> None:
    hands = Hands()
    hands.wall += 7200
    hands.steady += 10
    assert hands.passed() == 10


def test_a_wall_clock_that_is_set_back_is_believed_and_goes_on_from_there() -> None:
    hands = Hands()
    hands.wall -= 600
    assert hands.passed() == -600
    hands.wall += 600 + 60
    hands.steady += 60
    assert hands.passed() == -540
