"""A peer's number fits its field of the mark, is its own, and does not change while it is a peer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_node.core import marks

_NODES = st.sets(st.text("abcdef", min_size=1, max_size=4), max_size=30)


def test_fields_do_not_overlap_each_other_nor_kube_proxys() -> None:
    fields = [marks.POLICY, 0x4000, 0x8000, marks.PEER, marks.SELECTED]
    assert sum(fields) == marks.POLICY | 0xC000 | marks.PEER | marks.SELECTED
    assert marks.FOREIGN & marks.OURS == 0
    assert marks.FOREIGN | marks.OURS == 0xFFFFFFFF
    assert marks.FOREIGN & 0xC000 == 0xC000


@given(_NODES, _NODES)
def test_numbers_are_unique_and_kept(first: set[str], second: set[str]) -> None:
    before = marks.number_peers(first, {})
    after = marks.number_peers(second, before)
    assert set(after) == second
    assert len(set(after.values())) == len(second)
    assert all(after[node] == before[node] for node in first & second)


@given(_NODES)
def test_a_peers_mark_is_neither_none_nor_this_node(nodes: set[str]) -> None:
    for number in marks.number_peers(nodes, {}).values():
        mark = marks.peer_mark(number)
        assert mark & marks.PEER == mark
        assert mark not in (0, marks.SELF)


def test_the_field_has_a_last_number() -> None:
    assert marks.peer_mark(marks.MAX_PEERS) != marks.SELF
    with pytest.raises(ValueError, match="4095"):
        marks.peer_mark(4095)
    with pytest.raises(ValueError, match="peers"):
        marks.number_peers((str(n) for n in range(marks.MAX_PEERS + 1)), {})
