"""Frames on the wire are what the standards say, and only probes that came back are heard."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_node.core.frames import (
    PROBE_TTL,
    Echo,
    Say,
    announcement,
    checksum,
    mac_bytes,
    parse_probe,
    parse_say,
    probe,
    question,
)

MAC = "02:00:5e:00:53:01"
GATEWAY = "02:00:5e:00:53:02"


def test_an_ipv4_address_is_announced_by_arp_for_itself() -> None:
    frame = announcement(ip_address("198.51.100.7"), MAC)
    assert frame[:14] == b"\xff" * 6 + mac_bytes(MAC) + b"\x08\x06"
    assert frame[14:22] == bytes.fromhex("0001080006040001")
    address = bytes([198, 51, 100, 7])
    assert frame[22:] == mac_bytes(MAC) + address + bytes(6) + address


def test_an_ipv6_address_is_announced_by_an_overriding_advertisement() -> None:
    address = ip_address("2001:db8::7")
    frame = announcement(address, MAC)
    assert frame[:14] == bytes.fromhex("333300000001") + mac_bytes(MAC) + b"\x86\xdd"
    header, body = frame[14:54], frame[54:]
    assert header[:4] == b"\x60\0\0\0"
    assert header[4:8] == len(body).to_bytes(2) + bytes([58, 255])
    assert header[8:24] == address.packed
    assert header[24:40] == ip_address("ff02::1").packed
    assert body[0] == 136
    assert body[4] == 0x20
    assert body[8:24] == address.packed
    assert body[24:] == b"\x02\x01" + mac_bytes(MAC)
    pseudo = header[8:40] + len(body).to_bytes(4) + b"\0\0\0\x3a"
    assert checksum(pseudo + body) == 0


def test_an_ipv4_address_is_asked_for_without_claiming_it() -> None:
    frame = question(ip_address("198.51.100.7"), MAC)
    assert frame[:14] == b"\xff" * 6 + mac_bytes(MAC) + b"\x08\x06"
    assert frame[14:22] == bytes.fromhex("0001080006040001")
    assert frame[22:] == mac_bytes(MAC) + bytes(4) + bytes(6) + bytes([198, 51, 100, 7])
    assert parse_say(frame) is None, "a question says nothing"


def test_an_ipv6_address_is_asked_for_as_in_duplicate_address_detection() -> None:
    address = ip_address("2001:db8::12:3456")
    frame = question(address, MAC)
    assert frame[:14] == bytes.fromhex("3333ff123456") + mac_bytes(MAC) + b"\x86\xdd"
    header, body = frame[14:54], frame[54:]
    assert header[4:8] == len(body).to_bytes(2) + bytes([58, 255])
    assert header[8:24] == bytes(16)
    assert header[24:40] == ip_address("ff02::1:ff12:3456").packed
    assert (body[0], body[8:]) == (135, address.packed), "and no option: RFC 4861, section 4.3"
    assert checksum(header[8:40] + len(body).to_bytes(4) + b"\0\0\0\x3a" + body) == 0
    assert parse_say(frame) is None


@pytest.mark.parametrize("text", ["198.51.100.7", "2001:db8::7"])
def test_an_announcement_says_who_has_an_address(text: str) -> None:
    assert parse_say(announcement(ip_address(text), MAC)) == Say(ip_address(text), MAC)


def test_an_advertisement_without_its_option_speaks_for_who_sent_it() -> None:
    frame = announcement(ip_address("2001:db8::7"), MAC)[:-8]
    assert parse_say(frame) == Say(ip_address("2001:db8::7"), MAC)


@given(st.sampled_from(["198.51.100.7", "2001:db8::7"]), st.integers(0, 90), st.binary(max_size=30))
def test_a_damaged_answer_never_raises(text: str, cut: int, tail: bytes) -> None:
    parse_say(announcement(ip_address(text), MAC)[:cut] + tail)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))
def test_a_probe_is_heard_once_a_router_sent_it_back(sequence: int, sent: int) -> None:
    frame = probe(source=MAC, gateway=GATEWAY, sequence=sequence, sent=sent)
    assert checksum(frame[14:34]) == 0
    assert frame[22] == PROBE_TTL
    assert parse_probe(frame) is None
    back = mac_bytes(MAC) + mac_bytes(GATEWAY) + frame[12:22] + bytes([PROBE_TTL - 1]) + frame[23:]
    assert parse_probe(back) == Echo(mac=GATEWAY, sequence=sequence, sent=sent)


@given(st.binary(max_size=100))
def test_noise_is_no_probe(noise: bytes) -> None:
    assert parse_probe(noise) is None


@given(st.integers(0, 57), st.binary(max_size=3))
def test_a_damaged_probe_never_raises(cut: int, tail: bytes) -> None:
    frame = probe(source=MAC, gateway=GATEWAY, sequence=1, sent=2)
    parse_probe(frame[:cut] + tail)


@pytest.mark.parametrize("text", ["", "02:00:5e:00:53", "zz:00:5e:00:53:01", "02:00:5e:00:53:01:02"])
def test_what_is_no_mac_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        mac_bytes(text)
