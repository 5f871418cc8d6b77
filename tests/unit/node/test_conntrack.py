"""A connection that is looked for is found in what the kernel says, however little of it is read."""

import struct
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_node.core.desired import Address
from sluice_node.core.flows import Suspects
from sluice_node.kernel.conntrack import _entry, _Glance
from sluice_node.kernel.raw import NESTED, attribute, number

ADDRESSES = {v: [ip_address(text) for text in texts] for v, texts in {
    4: ("10.244.1.11", "198.51.100.7", "192.0.2.1", "203.0.113.10"),
    6: ("fd00:1::11", "2001:db8::7", "2001:db8:2::1", "2001:db8:100::10"),
}.items()}  # fmt: skip
PORTS = {6: (2, 3), 17: (2, 3), 1: (4,), 58: (7,)}
"""Protocol -> the attributes that name its connections; ICMP's are an identifier, type and code."""


def _tuple(source: Address, target: Address, protocol: int, *, swapped: bool) -> bytes:
    first = 1 if source.version == 4 else 3
    parts = [attribute(first, source.packed), attribute(first + 1, target.packed)]
    ip = attribute(1 | NESTED, b"".join(parts[::-1] if swapped else parts))
    ports = b"".join(attribute(kind, (1000 + kind).to_bytes(2)) for kind in PORTS[protocol])
    return ip + attribute(2 | NESTED, attribute(1, bytes([protocol])) + ports)


@st.composite
def messages(draw: st.DrawFn, *, swapped: bool = False) -> tuple[int, bytes]:
    """Version and one message of a dump."""
    version = draw(st.sampled_from([4, 6]))
    pick = st.sampled_from(ADDRESSES[version])
    protocol = draw(st.sampled_from([6, 17, 1 if version == 4 else 58]))
    source, target, seen = draw(pick), draw(pick), draw(pick)
    original = attribute(1 | NESTED, _tuple(source, target, protocol, swapped=swapped))
    reply = attribute(2 | NESTED, _tuple(target, seen, protocol, swapped=swapped))
    return version, struct.pack("!BBH", 2, 0, 0) + original + reply + attribute(12, number(7))


WHERE = st.builds(
    Suspects,
    sources=st.frozensets(st.sampled_from(ADDRESSES[4] + ADDRESSES[6])),
    seen=st.frozensets(st.sampled_from(ADDRESSES[4] + ADDRESSES[6])),
    targets=st.frozensets(st.sampled_from([ip_network("203.0.113.0/24"), ip_network("2001:db8:100::/64")]), max_size=1),
    everything=st.booleans(),
)


@given(messages(), WHERE)
def test_a_glance_rules_out_exactly_what_is_not_looked_for(message: tuple[int, bytes], where: Suspects) -> None:
    version, data = message
    entry = _entry(data[4:], family=2)
    assert entry is not None
    ruled_out = _Glance(where, version).rules_out(data)
    if entry.flow in where:
        assert not ruled_out
    elif not where.everything and not any(network.version == version for network in where.targets):
        assert ruled_out


@given(messages(swapped=True), WHERE)
def test_what_does_not_look_as_usual_is_read(message: tuple[int, bytes], where: Suspects) -> None:
    assert not _Glance(where, message[0]).rules_out(message[1])


@given(messages(), st.data())
def test_an_entry_of_no_known_kind_raises_nothing(message: tuple[int, bytes], data: st.DataObject) -> None:
    whole = message[1][4:]
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    changed[at] ^= data.draw(st.integers(1, 255))
    _entry(bytes(changed), family=2)
    _entry(whole[:at], family=2)


@pytest.mark.parametrize("length", [8, 12, 20, 30])
def test_a_message_that_is_cut_off_is_read(length: int) -> None:
    glance = _Glance(Suspects(sources=frozenset({ADDRESSES[4][0]})), 4)
    whole = struct.pack("!BBH", 2, 0, 0) + attribute(1 | NESTED, _tuple(*ADDRESSES[4][:2], 6, swapped=False))
    assert not glance.rules_out(whole[:length])
