"""The name server answers what its zone says, and survives whatever it is sent."""

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.dns.message import AAAA, ANY, SOA, A, Code
from testbed.dns.zone import Zone, ZoneError, format_zone, parse_zone, respond

MX = 15
ZONE = parse_zone(
    """
    # what tests use
    zone partner.example
    api.partner.example A 203.0.113.10
    api.partner.example A 203.0.113.11   # a second one
    api.partner.example AAAA 2001:db8::10
    deep.er.partner.example A 203.0.113.12
    """
)


def query(
    name: str, kind: int, *, flags: int = 0x0100, klass: int = 1, counts: tuple[int, int, int, int] = (1, 0, 0, 0)
) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label)
    return struct.pack("!HHHHHH", 0x1234, flags, *counts) + labels + b"\0" + struct.pack("!HH", kind, klass)


def header(data: bytes | None) -> tuple[int, Code, int, int]:
    """id, code, answers, authorities"""
    assert data is not None
    identifier, flags, _questions, answers, authorities, _additional = struct.unpack_from("!HHHHHH", data)
    assert flags & 0x8000
    return identifier, Code(flags & 0xF), answers, authorities


def ask(name: str, kind: int, *, limit: int = 512) -> bytes:
    data = respond(query(name, kind), ZONE, ttl=5, limit=limit)
    assert data is not None
    return data


def test_answers_with_every_address_of_the_family() -> None:
    data = ask("api.partner.example", A)
    assert header(data) == (0x1234, Code.NOERROR, 2, 0)
    assert data.endswith(bytes([203, 0, 113, 11]))
    assert bytes([203, 0, 113, 10]) in data
    assert ask("api.partner.example", AAAA).endswith(ipaddress.ip_address("2001:db8::10").packed)
    assert header(ask("api.partner.example", ANY))[2] == 3


def test_names_are_compared_without_case_and_repeated_as_asked() -> None:
    data = ask("API.Partner.example", A)
    assert header(data)[2] == 2
    assert b"\x03API\x07Partner" in data


def test_a_name_that_does_not_exist_is_nxdomain_with_the_soa() -> None:
    data = ask("no.partner.example", A)
    assert header(data) == (0x1234, Code.NXDOMAIN, 0, 1)
    assert struct.pack("!HH", SOA, 1) in data


@pytest.mark.parametrize(
    ("name", "kind"), [("api.partner.example", MX), ("deep.er.partner.example", AAAA), ("er.partner.example", A)]
)
def test_a_name_without_such_a_record_exists_all_the_same(name: str, kind: int) -> None:
    assert header(ask(name, kind)) == (0x1234, Code.NOERROR, 0, 1)


@pytest.mark.parametrize("name", ["example", "notpartner.example", "partner.example.com", ""])
def test_refuses_other_domains(name: str) -> None:
    assert header(respond(query(name, A), ZONE, ttl=5, limit=512))[1] == Code.REFUSED


def test_an_answer_too_long_for_a_datagram_is_truncated() -> None:
    addresses = tuple(ipaddress.IPv4Address(0xCB007100 + number) for number in range(40))
    zone = Zone("partner.example", {"many.partner.example": addresses})
    data = respond(query("many.partner.example", A), zone, ttl=5, limit=512)
    assert data is not None
    assert header(data)[2] == 0
    assert data[2] & 0x02
    assert header(respond(query("many.partner.example", A), zone, ttl=5, limit=65535))[2] == 40


def test_allows_edns() -> None:
    opt = b"\0" + struct.pack("!HHIH", 41, 1232, 0, 0)
    asked = query("api.partner.example", A, counts=(1, 0, 0, 1)) + opt
    assert header(respond(asked, ZONE, ttl=5, limit=512))[2] == 2


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (query("api.partner.example", A, flags=0x2800), Code.NOTIMP),
        (query("api.partner.example", A, counts=(2, 0, 0, 0)), Code.FORMERR),
        (query("api.partner.example", A, counts=(1, 1, 0, 0)), Code.FORMERR),
        (query("api.partner.example", A, counts=(1, 0, 0, 1)) + b"\0\0\1\0\1" + bytes(6), Code.FORMERR),
        (query("api.partner.example", A) + b"x", Code.FORMERR),
        (query("api.partner.example", A)[:-1], Code.FORMERR),
        (query("api.partner.example", A, klass=3), Code.REFUSED),
        (struct.pack("!HHHHHH", 0x1234, 0, 1, 0, 0, 0) + b"\xc0\x0c" + bytes(4), Code.FORMERR),
        (query(".".join(["a" * 63] * 4), A), Code.FORMERR),
    ],
)
def test_says_what_is_wrong_with_a_query(data: bytes, code: Code) -> None:
    assert header(respond(data, ZONE, ttl=5, limit=512))[1] == code


@pytest.mark.parametrize("data", [b"", b"short", query("api.partner.example", A, flags=0x8000)])
def test_stays_silent_to_what_is_no_query(data: bytes) -> None:
    assert respond(data, ZONE, ttl=5, limit=512) is None


@given(st.binary(max_size=80), st.sampled_from([b"", query("api.partner.example", A)[:12]]))
def test_never_raises_for_a_message(data: bytes, start: bytes) -> None:
    respond(start + data, ZONE, ttl=5, limit=512)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "names no zone"),
        ("api.partner.example A 203.0.113.1", "line 1: expected `zone NAME`"),
        ("zone partner.example\napi.other.example A 203.0.113.1", "line 2: .* not in the zone"),
        ("zone partner.example\napi.partner.example A 2001:db8::1", "line 2: .* no address for A"),
        ("zone partner.example\napi.partner.example A 203.0.113.300", "line 2"),
        ("zone partner.example\napi.partner.example MX 203.0.113.3", "line 2: expected"),
        ("zone partner.example\n-api.partner.example A 203.0.113.3", "line 2: expected"),
    ],
)
def test_a_zone_file_with_a_mistake_is_refused_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(ZoneError, match=problem):
        parse_zone(text)


def test_a_zone_survives_being_written_and_read() -> None:
    assert parse_zone(format_zone(ZONE)) == ZONE
