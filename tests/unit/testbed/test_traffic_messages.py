"""Targets and ICMP messages of the traffic program."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.traffic.ping import Reply, read_reply, request
from testbed.traffic.target import Target, TargetError, parse_target

FAMILIES = [socket.AF_INET, socket.AF_INET6]


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("203.0.113.10:7000", Target("203.0.113.10", 7000)),
        ("[2001:db8::10]:7000", Target("2001:db8::10", 7000)),
        ("[2001:db8::10]", Target("2001:db8::10", 0)),
        ("api.partner.example:80", Target("api.partner.example", 80)),
    ],
)
def test_reads_targets_and_writes_them_the_same(text: str, target: Target) -> None:
    assert parse_target(text) == target
    assert str(target) == text


@pytest.mark.parametrize("text", ["", "2001:db8::10", "203.0.113.10:", "203.0.113.10:70000", "[::1]x:1", ":80"])
def test_refuses_what_is_no_target(text: str) -> None:
    with pytest.raises(TargetError):
        parse_target(text)


def test_a_request_is_a_valid_echo_request() -> None:
    # Checked against RFC 1071 by hand: the sum of all 16-bit words of a right message is 0xffff.
    data = request(socket.AF_INET, identifier=0x1234, sequence=1, payload=b"odd")
    words = data + b"\0"
    total = sum(int.from_bytes(words[i : i + 2], "big") for i in range(0, len(words), 2))
    assert (total & 0xFFFF) + (total >> 16) == 0xFFFF
    assert data[:2] == b"\x08\x00"
    assert request(socket.AF_INET6, identifier=1, sequence=1, payload=b"")[:2] == b"\x80\x00"


@pytest.mark.parametrize("family", FAMILIES)
def test_reads_replies_but_not_requests(family: int) -> None:
    asked = request(family, identifier=7, sequence=3, payload=b"token")
    assert read_reply(family, asked, with_ip_header=False) is None
    replied = {socket.AF_INET: b"\0", socket.AF_INET6: b"\x81"}[socket.AddressFamily(family)] + asked[1:]
    assert read_reply(family, replied, with_ip_header=False) == Reply(7, 3, b"token")
    assert read_reply(family, b"\x45" + bytes(19) + replied, with_ip_header=True) == Reply(7, 3, b"token")


@given(st.binary(max_size=64), st.sampled_from(FAMILIES), st.booleans())
def test_never_raises_for_what_a_socket_received(data: bytes, family: int, with_ip_header: bool) -> None:
    read_reply(family, data, with_ip_header=with_ip_header)
