"""The interfaces are read as the kernel describes them, and the preferred way out is found among its routes."""

import errno
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from typing import Any

import pytest

from sluice_node.agent import links as module
from sluice_node.agent.links import read_links
from sluice_node.kernel.errors import KernelError
from sluice_node.kernel.raw import attribute, number


def link(index: int, name: str) -> bytes:
    return struct.pack("=BxHiII", 0, 1, index, 1, 0) + attribute(3, name.encode() + b"\0")


def address(index: int, text: str, length: int, *, other_end: str | None = None, scope: int = 0) -> bytes:
    own = ip_address(text)
    family = socket.AF_INET if own.version == 4 else socket.AF_INET6
    head = struct.pack("=BBBBI", family, length, 0, scope, index)
    if own.version == 6:
        return head + attribute(1, own.packed)
    return head + attribute(1, ip_address(other_end or text).packed) + attribute(2, own.packed)


def route(index: int, *, length: int = 0, metric: int = 0) -> bytes:
    head = struct.pack("=BBBBBBBBI", socket.AF_INET, length, 0, 0, 254, 3, 0, 1, 0)
    return head + attribute(4, number(index)) + (attribute(6, number(metric)) if metric else b"")


def route_over(*indexes: int) -> bytes:
    head = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 254, 3, 0, 1, 0)
    return head + attribute(9, b"".join(struct.pack("=HBBi", 8, 0, 0, index) for index in indexes))


class Netlink:
    """Answers dumps from lists; a number is an error."""

    links: list[bytes]
    addresses: list[bytes]
    routes: dict[int, list[bytes] | int]

    def __init__(self, protocol: int, *, strict: bool) -> None:
        """As the real one."""

    def ask(self, kind: int, *, flags: int, body: bytes) -> Iterator[bytes]:
        answers: list[bytes] | int = self.links if kind == 18 else self.addresses
        if kind == 26:
            answers = self.routes.get(body[0], [])
        if isinstance(answers, int):
            raise OSError(answers, "no")
        yield from answers

    def close(self) -> None:
        """Nothing to close."""


@pytest.fixture(name="netlink")
def _netlink(monkeypatch: pytest.MonkeyPatch) -> type[Netlink]:
    class Fake(Netlink):
        links = [link(1, "lo"), link(2, "eth0"), link(3, "eth1"), link(9, "sluice0")]  # noqa: RUF012
        addresses: list[bytes] = []  # noqa: RUF012
        routes: dict[int, Any] = {}  # noqa: RUF012

    monkeypatch.setattr(module, "RawNetlink", Fake)
    return Fake


def test_addresses_are_read_with_their_networks_but_not_those_of_the_tunnel_or_of_one_link(
    netlink: type[Netlink],
) -> None:
    netlink.addresses = [
        address(2, "192.0.2.5", 24),
        address(2, "2001:db8::5", 64),
        address(3, "10.1.0.1", 32, other_end="10.1.0.2"),
        address(1, "127.0.0.1", 8, scope=254),
        address(9, "169.254.101.2", 32),
    ]
    assert read_links().addresses == (
        ("eth0", IPv4Interface("192.0.2.5/24")),
        ("eth0", IPv6Interface("2001:db8::5/64")),
        ("eth1", IPv4Interface("10.1.0.1/32")),
    )


@pytest.mark.parametrize(
    ("routes", "expected"),
    [
        ([route(2, length=24)], {}),
        ([route(2, metric=200), route(3, metric=100)], {4: "eth1"}),
        ([route(2), route(3, metric=100)], {4: "eth0"}),
        ([route_over(3, 2)], {4: "eth1"}),
        ([route(77)], {}),
        (errno.ENOENT, {}),
    ],
    ids=["none", "lower metric", "no metric", "several next hops", "unknown interface", "no table"],
)
def test_the_default_route_is_the_one_that_the_kernel_prefers(
    netlink: type[Netlink], routes: list[bytes] | int, expected: dict[int, str]
) -> None:
    netlink.routes = {socket.AF_INET: routes}
    assert read_links().defaults == expected


def test_the_next_hops_of_every_route_are_known_whatever_its_table_and_kind(netlink: type[Netlink]) -> None:
    def via(*hops: bytes, table: int = 254, length: int = 24, family: int = socket.AF_INET) -> bytes:
        return (
            struct.pack("=BBBBBBBBI", family, length, 0, 0, table, 3, 0, 1, 0)
            + attribute(4, number(2))
            + b"".join(hops)
        )

    several = b"".join(
        struct.pack("=HBBi", 8 + len(hop), 0, 0, 2) + hop
        for hop in (attribute(5, ip_address(f"192.0.2.{last}").packed) for last in (3, 4))
    )
    other_family = struct.pack("=H", socket.AF_INET6) + ip_address("2001:db8::6").packed
    netlink.routes = {
        socket.AF_INET: [
            via(attribute(5, ip_address("192.0.2.1").packed), length=0),
            via(attribute(5, ip_address("192.0.2.2").packed), table=100),
            via(attribute(9, several)),
            via(attribute(18, other_family)),
            via(),
        ],
        socket.AF_INET6: [via(attribute(5, ip_address("2001:db8::1").packed), family=socket.AF_INET6)],
    }
    found = read_links()
    v4 = {ip_address(f"192.0.2.{last}") for last in range(1, 5)}
    assert found.gateways == v4 | {ip_address("2001:db8::6"), ip_address("2001:db8::1")}


def test_single_hosts_that_others_route_to_directly_are_known(netlink: type[Netlink]) -> None:
    def to(host: str, *, length: int = 32, protocol: int = 3, kind: int = 1, via: str | None = None) -> bytes:
        head = struct.pack("=BBBBBBBBI", socket.AF_INET, length, 0, 0, 254, protocol, 0, kind, 0)
        hop = attribute(5, ip_address(via).packed) if via else b""
        return head + attribute(1, ip_address(host).packed) + attribute(4, number(3)) + hop

    netlink.routes = {
        socket.AF_INET: [
            to("10.1.0.5"),
            to("10.1.0.0", length=24),
            to("10.1.0.6", protocol=101),
            to("10.1.0.7", kind=6),
            to("10.1.0.8", via="192.0.2.1"),
        ]
    }
    assert read_links().attached == {ip_address("10.1.0.5"): "eth1"}, "not networks, our own, black holes, or far ones"


def test_a_default_route_of_another_table_is_not_the_nodes(netlink: type[Netlink]) -> None:
    head = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, 3, 0, 1, 0)
    elsewhere = head + attribute(4, number(3)) + attribute(15, number(7100))
    netlink.routes = {socket.AF_INET: [elsewhere, route(2, metric=100)]}
    assert read_links().defaults == {4: "eth0"}


def test_what_cannot_be_read_is_an_error(netlink: type[Netlink]) -> None:
    netlink.routes = {socket.AF_INET: errno.EPERM}
    with pytest.raises(KernelError):
        read_links()
