"""A port belongs to exactly one slice, its top bits say which, and no slice has a system port."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_api.slices import MAX_SIZE, MIN_SIZE, PortSlice, SliceError, all_slices, parse, ranges

SIZES = [128, 256, 512, 1024, 2048, 4096, 8192, 16384]
slices = st.sampled_from([piece for size in SIZES for piece in all_slices(size)])


@pytest.mark.parametrize("size", SIZES)
def test_the_slices_of_a_size_cover_every_port_from_the_first_exactly_once(size: int) -> None:
    found = list(all_slices(size))
    assert found == sorted(found)
    ports = [port for piece in found for port in range(piece.first, piece.last + 1)]
    assert ports == list(range(max(1024, size), 65536))


@given(slices)
def test_no_slice_has_a_port_below_1024(piece: PortSlice) -> None:
    assert piece.first >= 1024
    assert piece.last <= 65535


@given(slices, st.integers(0, 65535))
def test_the_top_bits_of_a_port_name_its_slice(piece: PortSlice, port: int) -> None:
    assert (port in piece) == (port // piece.size == piece.index)


@given(slices)
def test_a_slice_written_and_read_is_the_same(piece: PortSlice) -> None:
    assert parse(str(piece)) == piece


REFUSED = [
    "", "1024", "1024-", "-2047", "1024-2048", "1025-2048", "2047-1024", "0-1023", "64512-65536", "1024 - 2047",
    "+1024-2047", "01024-2047", "1024-02047", "1024-1087", "1100-1227", "٢٠٤٨-3071", "1024-2047-3071",
]  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_not_exactly_one_slice_is_refused(text: str) -> None:
    with pytest.raises(SliceError):
        parse(text)


@given(st.text(alphabet="0123456789-", max_size=12))
def test_what_is_read_is_what_would_be_written(text: str) -> None:
    try:
        found = parse(text)
    except SliceError:
        return
    assert str(found) == text


@pytest.mark.parametrize("size", [-1, 0, 1, 64, 127, 129, 1000, 32768, 65536])
def test_a_size_that_slices_cannot_have_is_refused_with_the_bounds(size: int) -> None:
    with pytest.raises(SliceError, match=f"from {MIN_SIZE} to {MAX_SIZE}"):
        all_slices(size)


@given(st.lists(slices, max_size=40))
def test_merged_ranges_are_the_same_ports_and_none_touches_another(pieces: list[PortSlice]) -> None:
    merged = ranges(pieces)
    covered = bytearray(65536)
    for piece in pieces:
        covered[piece.first : piece.last + 1] = b"1" * piece.size
    expected = [match.span() for match in re.finditer(b"1+", covered)]
    assert [(first, last + 1) for first, last in merged] == expected
    assert all(last + 1 < first for (_, last), (first, _) in pairwise(merged))


def test_adjacent_slices_are_one_range() -> None:
    assert ranges([PortSlice(41, 1024), PortSlice(40, 1024), PortSlice(43, 1024)]) == ((40960, 43007), (44032, 45055))
