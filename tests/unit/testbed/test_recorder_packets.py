"""What the recorder reads from a packet, and that no packet can stop it."""

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.recorder.packets import Packet, read

SOURCE4, OUTSIDE4 = ipaddress.IPv4Address("10.1.2.3"), ipaddress.IPv4Address("203.0.113.10")
SOURCE6, OUTSIDE6 = ipaddress.IPv6Address("fd00:1::3"), ipaddress.IPv6Address("2001:db8::10")
SYN, RST, ACK = 0x02, 0x04, 0x10


def v4(protocol: int, payload: bytes, *, offset: int = 0, options: bytes = b"") -> bytes:
    header = 0x45 + len(options) // 4
    fixed = struct.pack("!BBHHHBBH", header, 0, 20 + len(options) + len(payload), 0, offset, 64, protocol, 0)
    return fixed + SOURCE4.packed + OUTSIDE4.packed + options + payload


def v6(protocol: int, payload: bytes) -> bytes:
    return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + SOURCE6.packed + OUTSIDE6.packed + payload


def tcp(flags: int) -> bytes:
    return struct.pack("!HHIIBBHHH", 40000, 443, 1, 1, 5 << 4, flags, 1000, 0, 0)


def udp() -> bytes:
    return struct.pack("!HHHH", 40000, 53, 8, 0)


def echo(kind: int, identifier: int) -> bytes:
    return struct.pack("!BBHHH", kind, 0, 0, identifier, 1)


@pytest.mark.parametrize(
    ("flags", "stage"),
    [(SYN, "open"), (SYN | ACK, "other"), (ACK, "other"), (RST, "reset"), (RST | ACK, "reset"), (0, "other")],
)
def test_tells_opening_from_resetting_from_other_segments(flags: int, stage: str) -> None:
    assert read(v4(6, tcp(flags))) == Packet("tcp", SOURCE4, 40000, OUTSIDE4, 443, stage)
    assert read(v6(6, tcp(flags))) == Packet("tcp", SOURCE6, 40000, OUTSIDE6, 443, stage)


def test_reads_datagrams_of_both_families() -> None:
    assert read(v4(17, udp())) == Packet("udp", SOURCE4, 40000, OUTSIDE4, 53)
    assert read(v6(17, udp())) == Packet("udp", SOURCE6, 40000, OUTSIDE6, 53)


def test_reads_the_identifier_of_an_echo() -> None:
    assert read(v4(1, echo(8, 77))) == Packet("icmp", SOURCE4, 77, OUTSIDE4, 0)
    assert read(v6(58, echo(128, 77))) == Packet("icmp", SOURCE6, 77, OUTSIDE6, 0)
    assert read(v4(1, echo(0, 77))) == Packet("icmp-reply", SOURCE4, 77, OUTSIDE4, 0)


def test_skips_ip_options() -> None:
    assert read(v4(17, udp(), options=bytes(8))) == Packet("udp", SOURCE4, 40000, OUTSIDE4, 53)


def test_skips_ipv6_extension_headers() -> None:
    options = bytes([17, 1]) + bytes(14)
    hop_by_hop = bytes([60, 0]) + bytes(6)
    assert read(v6(0, hop_by_hop + options + udp())) == Packet("udp", SOURCE6, 40000, OUTSIDE6, 53)


def test_counts_later_fragments_without_taking_their_bytes_for_ports() -> None:
    assert read(v4(17, udp(), offset=185)) == Packet("udp", SOURCE4, 0, OUTSIDE4, 0)
    assert read(v6(44, struct.pack("!BBHI", 17, 0, 185 << 3, 7) + udp())) == Packet("udp", SOURCE6, 0, OUTSIDE6, 0)


def test_reads_the_first_fragment_with_its_ports() -> None:
    assert read(v4(17, udp(), offset=0x2000)) == Packet("udp", SOURCE4, 40000, OUTSIDE4, 53)
    assert read(v6(44, struct.pack("!BBHI", 17, 0, 1, 7) + udp())) == Packet("udp", SOURCE6, 40000, OUTSIDE6, 53)


def test_records_protocols_that_it_does_not_know() -> None:
    assert read(v4(132, bytes(12))) == Packet("ip-132", SOURCE4, 0, OUTSIDE4, 0)
    assert read(v4(1, echo(3, 0))) == Packet("icmp-3", SOURCE4, 0, OUTSIDE4, 0)


def test_leaves_out_neighbour_discovery() -> None:
    assert read(v6(58, echo(135, 0))) is None


def test_leaves_out_what_is_not_ip() -> None:
    assert read(bytes.fromhex("0001080006040001") + bytes(20)) is None


@given(st.binary(max_size=128), st.sampled_from([b"", b"\x45", b"\x4f", b"\x60"]))
def test_never_raises(data: bytes, start: bytes) -> None:
    packet = read(start + data)
    assert packet is None or isinstance(packet, Packet)


@given(st.integers(0, 90))
def test_a_cut_packet_is_still_counted_once_its_addresses_are_there(length: int) -> None:
    whole = v6(0, bytes([6, 0]) + bytes(6) + tcp(SYN))
    packet = read(whole[:length])
    assert (packet is not None) == (length >= 40)
    assert packet is None or packet.source == SOURCE6
