"""DNS answers count only when they answer the question asked; nothing in a message can lead the parser astray."""

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice_proxy.core.dns import (
    NEGATIVE_TTL_MAX,
    TTL_MAX,
    DnsAnswer,
    DnsError,
    RecordType,
    encode_query,
    parse_answer,
)
from sluice_proxy.engine.resolver import ResolveError, parse_resolv_conf
from sluice_proxy.lookup import merge

A, AAAA, CNAME, SOA = RecordType.A, RecordType.AAAA, RecordType.CNAME, RecordType.SOA


def wire(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label) + b"\0"


def record(owner: bytes, kind: int, data: bytes, *, ttl: int = 60, rclass: int = 1) -> bytes:
    return owner + struct.pack("!HHIH", kind, rclass, ttl, len(data)) + data


def message(
    *answers: bytes, name: str = "a.test", kind: RecordType = A, identifier: int = 7, flags: int = 0x8180,
    authority: tuple[bytes, ...] = (),
) -> bytes:  # fmt: skip
    head = struct.pack("!HHHHHH", identifier, flags, 1, len(answers), len(authority), 0)
    return head + wire(name) + struct.pack("!HH", kind, 1) + b"".join(answers + authority)


def parse(data: bytes, name: str = "a.test", kind: RecordType = A) -> DnsAnswer:
    return parse_answer(data, 7, name, kind)


ASKED = b"\xc0\x0c"
V4 = IPv4Address("192.0.2.1")


def test_a_query_asks_one_recursive_question() -> None:
    query = encode_query(7, "a.test", AAAA)
    assert query == b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x04test\x00\x00\x1c\x00\x01"


def test_addresses_come_in_their_order_with_the_least_ttl() -> None:
    got = parse(message(record(ASKED, A, b"\x01\x02\x03\x04", ttl=9), record(wire("A.Test"), A, V4.packed, ttl=5)))
    assert got == DnsAnswer(0, False, (IPv4Address("1.2.3.4"), V4), 5)
    v6 = parse(message(record(ASKED, AAAA, IPv6Address("2001:db8::1").packed), kind=AAAA), kind=AAAA)
    assert v6.addresses == (IPv6Address("2001:db8::1"),)


def test_aliases_are_followed_whatever_their_order() -> None:
    chain = [record(wire("c.test"), A, V4.packed), record(ASKED, CNAME, wire("b.test"), ttl=3),
             record(wire("b.test"), CNAME, wire("c.test"))]  # fmt: skip
    assert parse(message(*chain)) == DnsAnswer(0, False, (V4,), 3)


@pytest.mark.parametrize(
    "answers",
    [
        [record(wire("evil.test"), A, V4.packed)],
        [record(ASKED, CNAME, wire("b.test")), record(wire("evil.test"), A, V4.packed)],
        [record(ASKED, CNAME, ASKED)],
        [record(ASKED, A, V4.packed, rclass=3)],
        [record(wire(r"a\.test"), A, V4.packed)],
    ],
)
def test_records_of_other_names_do_not_count(answers: list[bytes]) -> None:
    assert parse(message(*answers)).addresses == ()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 11,
        message(identifier=8),
        message(flags=0x0180),
        message(flags=0x8980),
        message(name="b.test"),
        message(kind=AAAA),
        message(record(ASKED, A, b"\1\2\3")),
        message(record(ASKED, A, b"\1\2\3\4"))[:-1],
        message(record(b"\xc0\xff", A, b"\1\2\3\4")),
        message(record(b"\xc0\x18", A, b"\1\2\3\4")),
        message(record(b"\x80", A, b"\1\2\3\4")),
        message(record(ASKED, SOA, b""), authority=(record(ASKED, SOA, b"short"),)),
        struct.pack("!HHHHHH", 7, 0x8180, 2, 0, 0, 0) + wire("a.test") + struct.pack("!HH", A, 1),
        struct.pack("!HHHHHH", 7, 0x8180, 1, 65535, 0, 0) + wire("a.test") + struct.pack("!HH", A, 1),
    ],
)
def test_what_does_not_answer_the_question_is_not_an_answer(data: bytes) -> None:
    with pytest.raises(DnsError):
        parse(data)


@pytest.mark.parametrize(
    ("ttl", "minimum", "expected"), [(30, 20, 20), (20, 30, 20), (900, 900, NEGATIVE_TTL_MAX), (1 << 31, 9, 0)]
)
def test_a_negative_answer_holds_as_long_as_its_zone_says(ttl: int, minimum: int, expected: int) -> None:
    soa = record(ASKED, SOA, b"\0\0" + struct.pack("!IIIII", 1, 2, 3, 4, minimum), ttl=ttl)
    assert parse(message(flags=0x8183, authority=(soa,))) == DnsAnswer(3, False, (), expected)
    assert parse(message(flags=0x8183)).ttl == 0


def test_a_ttl_has_an_upper_limit_and_a_truncated_answer_no_addresses() -> None:
    assert parse(message(record(ASKED, A, V4.packed, ttl=1 << 30))).ttl == TTL_MAX
    assert parse(message(record(ASKED, A, V4.packed), flags=0x8380)) == DnsAnswer(0, True, (), 0)


@settings(deadline=None)
@given(st.binary(max_size=120))
def test_any_bytes_after_the_question_end_in_an_answer_or_a_plain_error(tail: bytes) -> None:
    data = struct.pack("!HHHHHH", 7, 0x8180, 1, 3, 1, 0) + wire("a.test") + struct.pack("!HH", A, 1) + tail
    try:
        got = parse(data)
    except DnsError:
        return
    assert 0 <= got.ttl <= TTL_MAX


def test_resolv_conf_gives_servers_and_search_list() -> None:
    config = parse_resolv_conf(
        "# comment\nnameserver 10.96.0.10\nnameserver bad\nnameserver 2001:db8::53\n"
        "search A.test. b.test\noptions ndots:5\n"
    )
    assert [str(address) for address, _ in config.servers] == ["10.96.0.10", "2001:db8::53"]
    assert config.search == ("a.test", "b.test")
    assert [str(address) for address, _ in parse_resolv_conf("").servers] == ["127.0.0.1"]


def test_families_alternate_and_one_that_failed_does_not_matter() -> None:
    sixes = (ip_address("2001:db8::1"), ip_address("2001:db8::2"))
    fours = (ip_address("192.0.2.1"), ip_address("192.0.2.2"))
    assert merge({4: fours, 6: sixes}) == (sixes[0], fours[0], sixes[1], fours[1])
    assert merge({6: ResolveError.TIMEOUT, 4: fours}) == fours
    assert merge({6: ResolveError.TIMEOUT, 4: ()}) is ResolveError.TIMEOUT
    assert merge({4: (), 6: ()}) == ()
