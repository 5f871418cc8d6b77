"""The order in which addresses are handed out: new ones before used ones, the same for everybody who asks."""

from ipaddress import ip_address
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from sluice_api.addresses import Address, PoolAddresses
from sluice_api.candidates import candidates, moved_on

POOL = PoolAddresses.parse(["198.51.100.1-198.51.100.3", "198.51.100.7-198.51.100.9", "2001:db8::/124"])
NUMBERS = (1, 2, 3, 7, 8, 9)


def _v4(number: int) -> Address:
    return ip_address(f"198.51.100.{number}")


def _next(*taken: int, after: int | None) -> list[int]:
    found = candidates(POOL, 4, after=None if after is None else _v4(after), taken={_v4(number) for number in taken})
    return [int(address) & 0xFF for address in found]


def test_the_search_begins_at_the_lowest_and_goes_on_behind_the_last() -> None:
    assert _next(after=None) == [1, 2, 3, 7, 8, 9]
    assert _next(after=3) == [7, 8, 9, 1, 2, 3]
    assert _next(after=9) == [1, 2, 3, 7, 8, 9]


def test_a_place_that_the_pool_no_longer_has_is_a_place_all_the_same() -> None:
    assert _next(after=5) == [7, 8, 9, 1, 2, 3]


def test_taken_addresses_are_passed_over() -> None:
    assert _next(1, 7, 9, after=2) == [3, 8, 2]


def test_the_families_are_searched_each_for_itself() -> None:
    first = ip_address("2001:db8::1")
    found = candidates(POOL, 6, after=ip_address("2001:db8::e"), taken=())
    assert [str(address) for address in islice(found, 2)] == ["2001:db8::f", str(first)]


def test_a_full_pool_has_none_and_leaves_the_place_alone() -> None:
    taken = {_v4(number) for number in NUMBERS}
    assert list(candidates(POOL, 4, after=_v4(2), taken=taken)) == []
    assert moved_on(POOL, 4, after=_v4(2), taken=taken) == _v4(2)


@given(steps=st.lists(st.one_of(st.just(0), st.sampled_from(NUMBERS)), max_size=30))
def test_an_address_is_not_given_again_before_all_others_that_were_free_all_along(steps: list[int]) -> None:
    """0 takes the next address, another number gives that one back; the place is remembered after each step."""
    taken: set[Address] = set()
    waiting: dict[int, int] = dict.fromkeys(NUMBERS, 0)
    place: Address | None = None
    for number, step in enumerate(steps, start=1):
        if step:
            if _v4(step) in taken:
                taken.remove(_v4(step))
                waiting[step] = number
        else:
            for chosen in candidates(POOL, 4, after=place, taken=taken):
                taken.add(chosen)
                never_used = [n for n in NUMBERS if not waiting[n] and _v4(n) not in taken]
                assert not waiting[int(chosen) & 0xFF] or not never_used
                break
        place = moved_on(POOL, 4, after=place, taken=taken)
