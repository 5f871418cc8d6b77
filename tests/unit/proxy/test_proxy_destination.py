"""Addresses that are never dialled: every form of every one of them."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice_proxy.core.destination import embedded, forbidden

FORBIDDEN_V4 = [
    "0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.255.255", "169.254.0.1", "169.254.169.254", "100.100.100.200",
    "168.63.129.16", "192.0.0.192", "192.88.99.1", "224.0.0.1", "239.255.255.255", "240.0.0.5", "255.255.255.255",
]  # fmt: skip
ALLOWED_V4 = [
    "1.1.1.1", "8.8.8.8", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "192.0.2.1", "198.18.0.1",
    "198.51.100.1", "203.0.113.1", "223.255.255.255", "126.255.255.255", "128.0.0.1", "168.63.129.17",
]  # fmt: skip


def nat64(prefix: str, length: int, inner: str) -> str:
    """RFC 6052, section 2.2: the address of a translator's prefix that stands for an IPv4 address."""
    octets = bytearray(IPv6Address(prefix).packed)
    position = length // 8
    for octet in IPv4Address(inner).packed:
        if position == 8:
            position += 1
        octets[position] = octet
        position += 1
    return str(IPv6Address(bytes(octets)))


@pytest.mark.parametrize("text", FORBIDDEN_V4)
def test_ipv4_that_is_not_the_outside(text: str) -> None:
    assert forbidden(ip_address(text))


@pytest.mark.parametrize("text", ALLOWED_V4)
def test_ipv4_that_a_partner_may_use(text: str) -> None:
    assert forbidden(ip_address(text)) is None


@pytest.mark.parametrize(
    "text",
    [
        "::", "::1", "::2", "fe80::1", "febf::1", "fec0::1", "ff02::1", "ff0e::1", "fd00:ec2::254", "fd20:ce::254",
        "100::1",
        "100:0:0:1::5", "2001::1", "2001:10::1", "2001:20::1", "2002::1", "5f00::1", "::ffff:0:192.0.2.1",
    ],
)  # fmt: skip
def test_ipv6_that_is_not_the_outside(text: str) -> None:
    assert forbidden(ip_address(text))


@pytest.mark.parametrize(
    "text", ["2001:db8::1", "2606:4700::1111", "fd12:3456::1", "2001:4860:4860::8888", "100:0:0:2::1"]
)
def test_ipv6_that_a_partner_may_use(text: str) -> None:
    assert forbidden(ip_address(text)) is None


@pytest.mark.parametrize("inner", [*FORBIDDEN_V4, *ALLOWED_V4])
def test_tunnels_and_mappings_are_never_dialled_whatever_is_inside(inner: str) -> None:
    number = int(IPv4Address(inner))
    forms = [
        f"::ffff:{inner}", f"::{inner}", f"::ffff:0:{inner}",
        str(IPv6Address((0x2002 << 112) | number << 80 | 1)),
        str(IPv6Address((0x20010000 << 96) | number ^ 0xFFFFFFFF)),
    ]  # fmt: skip
    for form in forms:
        assert forbidden(ip_address(form)), form


@pytest.mark.parametrize("inner", FORBIDDEN_V4)
def test_a_translator_does_not_hide_a_forbidden_address(inner: str) -> None:
    assert forbidden(ip_address(f"64:ff9b::{inner}"))
    for length in (48, 56, 64, 96):
        assert forbidden(ip_address(nat64("64:ff9b:1::", length, inner))), length
    assert forbidden(ip_address(f"2001:db8::5efe:{inner}"))
    assert forbidden(ip_address(f"2001:db8::200:5efe:{inner}"))


@pytest.mark.parametrize("inner", ALLOWED_V4)
def test_a_translator_leads_to_what_may_be_dialled(inner: str) -> None:
    assert forbidden(ip_address(f"64:ff9b::{inner}")) is None
    assert forbidden(ip_address(nat64("64:ff9b:1::", 96, inner))) is None


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([48, 56, 64, 96]))
def test_every_reading_of_a_local_translators_prefix_is_found(number: int, length: int) -> None:
    inner = IPv4Address(number)
    assert inner in set(embedded(IPv6Address(nat64("64:ff9b:1::", length, str(inner)))))


FORBIDDEN_NETWORKS = [
    ip_network(text)
    for text in (
        "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "224.0.0.0/3", "::/96", "::ffff:0:0/96",
        "fe80::/10",
        "fec0::/10", "ff00::/8", "2001::/32", "2002::/16", "100::/64", "100:0:0:1::/64", "fd00:ec2::/32",
    )
]  # fmt: skip


@settings(deadline=None)
@given(st.data())
def test_no_address_of_a_forbidden_network_escapes(data: st.DataObject) -> None:
    network = data.draw(st.sampled_from(FORBIDDEN_NETWORKS))
    offset = data.draw(st.integers(0, network.num_addresses - 1))
    assert forbidden(network.network_address + offset)
