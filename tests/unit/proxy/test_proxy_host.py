"""One spelling of a host has one meaning: the odd forms of addresses are neither addresses nor names."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice_proxy.core.host import parse_authority
from sluice_proxy.core.refusal import RefusedError


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("partner.test:1", "partner.test"),
        ("PARTNER.Test.:1", "partner.test"),
        ("xn--bcher-kva.test:1", "xn--bcher-kva.test"),
        ("_srv.a-b.test:1", "_srv.a-b.test"),
        ("intra:1", "intra"),
        ("1and1.test:1", "1and1.test"),
        ("127.1.test:1", "127.1.test"),
        ("192.0.2.1:1", IPv4Address("192.0.2.1")),
        ("[2001:DB8::1]:1", IPv6Address("2001:db8::1")),
        ("[::ffff:192.0.2.1]:1", IPv6Address("::ffff:192.0.2.1")),
        (f"{'.'.join(['a' * 63] * 3)}.{'a' * 61}:1", f"{'.'.join(['a' * 63] * 3)}.{'a' * 61}"),
    ],
)
def test_addresses_and_names_in_normal_form(text: str, host: object) -> None:
    assert parse_authority(text) == (host, 1)


@pytest.mark.parametrize(
    "text",
    [
        "localhost", "LOCALHOST.", "a.localhost",
        "0x7f.1", "127.1", "2130706433", "0177.0.0.1", "0x7f000001", "127.0.0.01", "127.0.0.1.", "1.2.3.4.5",
        "256.0.0.1",
        "①②⑦.0.0.1", "a.0x", "a.1", "", ".", "a..b", ".a", "a..", "-a.test", "a-.test", "a b", "a%00b", "a/b", "a@b",
        "bücher.test",
        "a" * 64, f"{'.'.join(['a' * 63] * 4)}", "[example.com]", "[127.0.0.1]", "[::1", "[]", "[fe80::1%eth0]",
        "[v1.a]",
        "[::1]x", "::1", "a,b", "a\\b", "*", "a.test\x00",
    ],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(RefusedError):
        parse_authority(f"{text}:1")


@pytest.mark.parametrize(
    "port", ["", ":", ":0", ":65536", ":080", ":+80", ":-1", ":0x50", ": 80", ":80 ", ":８０", ":8_0", ":99999", ":1:2"]
)
def test_a_port_is_plain_decimal_from_1_to_65535(port: str) -> None:
    with pytest.raises(RefusedError):
        parse_authority(f"a.test{port}")


def test_a_port_may_be_left_out_where_there_is_a_default() -> None:
    assert parse_authority("a.test", 80) == ("a.test", 80)
    assert parse_authority("[::2]", 80) == (IPv6Address("::2"), 80)


@settings(deadline=None)
@given(st.text(max_size=80))
def test_a_name_that_passes_is_ascii_lower_case_and_stays_the_same(text: str) -> None:
    try:
        host, port = parse_authority(f"{text}:443")
    except RefusedError:
        return
    assert port == 443
    if isinstance(host, str):
        assert host.isascii()
        assert host == host.lower()
        assert parse_authority(f"{host}:443") == (host, 443)
