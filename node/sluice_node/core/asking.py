"""Whether somebody on a link has an address that a pool would give next: what to ask when, and what an answer means.

A gateway asks for the addresses of its pools that nobody has claimed, a few of each pool and family at a time, before
they are given; and once for an egress IP of which it is the first holder, as that may have been given before anyone
asked. Never at a take-over: whoever held it before has it.

Rules:
- Three questions for each address, with the pauses of RFC 5227, section 1.1 (which are those of RFC 4862 for IPv6, or
  longer); few addresses begin at a time. Asked again every ASK_AGAIN, sooner where somebody answered.
- Who also answers for an address that cannot be there (a decoy) answers for everything, as some routers do: from him
  nothing follows. An answer counts only when the decoys of its interface were asked to the end.
- Answers of this cluster's own nodes say nothing: they hold egress IPs, and report themselves what else they have.
- What is known stays known until it was asked anew to the end.
Pure: no I/O, no clock; times are seconds of one monotonic clock.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from math import inf
from typing import Final

from sluice_api.timers import ASK_AGAIN, ASK_CONFLICT_AGAIN
from sluice_node.core.desired import Address
from sluice_node.core.links import Links

TIMES: Final = 3
_WAIT: Final = 1.0
"""PROBE_WAIT: the first question is delayed by up to so much."""
_BETWEEN: Final = (1.0, 2.0)
"""PROBE_MIN, PROBE_MAX."""
_LISTEN: Final = 2.0
"""ANNOUNCE_WAIT: after the last question."""
PACE: Final = 0.25
"""Seconds between the beginnings of two addresses."""
_PAUSE: Final = 30.0
"""Seconds after which an interface is tried again on which nobody could be asked, at least."""
_VOICES: Final = 8
"""MACs that are kept of those who answer for one address."""

_DUMMY: Final = IPv4Address("192.0.0.8")
"""RFC 7600, IPv4 dummy address: never the destination of anything, so that only who answers for everything has it."""
_DISCARD: Final = IPv6Address("100::5:1dec")
"""Of the discard-only block (RFC 6666)."""
_IDENTIFIER: Final = 0x7D3C_51A9_E6B2_40F8
"""An interface identifier that was drawn once, at random: nobody else's, as far as chance can say."""


def decoys(links: Links, interface: str, addresses: Iterable[Address]) -> frozenset[Address]:
    """Addresses that nobody on the interface has, alike the given ones in how a router would look at them: on the
    interface's own networks, and elsewhere."""
    found: set[Address] = set()
    networks = [own.network for name, own in links.addresses if name == interface]
    for address in addresses:
        near = next((net for net in networks if net.version == address.version and address in net), None)
        if near is None:
            found.add(_DUMMY if address.version == 4 else _DISCARD)
        elif isinstance(near, IPv4Network):
            # Host number 0 is nobody's (RFC 1122, section 3.2.1.3).
            found.add(near.network_address)
        else:
            found.add(_drawn(near))
    return frozenset(found)


def _drawn(network: IPv6Network) -> IPv6Address:
    return IPv6Address(int(network.network_address) | (_IDENTIFIER & int(network.hostmask)))


@dataclass(slots=True)
class _Inquiry:
    """One address that is being asked for, or will be: `due` is the time of what comes next."""

    interface: str
    due: float
    decoy: bool = False
    sent: int = 0
    heard: dict[str, None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Answered:
    """`settled`: it was weighed against decoys before, by an earlier process."""

    interface: str
    macs: tuple[str, ...]
    settled: bool = False


class Asking:
    """`draw` gives numbers in 0..1. All addresses are those of one node's pools."""

    def __init__(self, draw: Callable[[], float]) -> None:
        self._draw = draw
        self._inquiries: dict[Address, _Inquiry] = {}
        self._answers: dict[Address, _Answered] = {}
        self._held: Mapping[Address, str] = {}
        self._contested: dict[Address, dict[str, float]] = {}
        """Held egress IP -> who else spoke as it, and when last."""
        self._asked_at_first: set[Address] = set()
        self._begin = -inf

    def follow(
        self,
        wanted: Mapping[Address, str],
        *,
        decoys: Mapping[Address, str],
        held: Mapping[Address, str],
        first: Iterable[Address],
        now: float,
    ) -> None:
        """Ask for `wanted` on their interfaces; `held` are egress IPs that this node answers for, `first` those of them
        that nobody held before."""
        self._held = held
        self._asked_at_first &= held.keys()
        newly = [address for address in first if address in held and address not in self._asked_at_first]
        self._asked_at_first.update(newly)
        wishes = dict(decoys) | dict(wanted)
        for address, inquiry in list(self._inquiries.items()):
            if wishes.get(address, held.get(address)) != inquiry.interface:
                del self._inquiries[address]
        for address in (*decoys, *wanted, *newly):
            if address not in self._inquiries:
                self._begin = max(now, self._begin + PACE)
                interface = wishes.get(address) or held[address]
                due = self._begin + self._draw() * _WAIT
                self._inquiries[address] = _Inquiry(interface, due, decoy=address in decoys)
        self._answers = {a: said for a, said in self._answers.items() if wishes.get(a) == said.interface}
        self._contested = {address: voices for address, voices in self._contested.items() if address in held}

    def remember(self, address: Address, interface: str, mac: str) -> None:
        """An earlier process of this agent heard this: it stands until it was asked anew."""
        self._answers.setdefault(address, _Answered(interface, (mac,), settled=True))

    def next(self) -> float | None:
        """When to call `due`; None while there is nothing to ask."""
        dues = [inquiry.due for inquiry in self._inquiries.values()]
        dues += [min(voices.values()) + ASK_CONFLICT_AGAIN for voices in self._contested.values() if voices]
        return min(dues, default=None)

    def due(self, now: float) -> list[tuple[str, Address]]:
        """The questions to put now, as (interface, address)."""
        questions = []
        self._contested = {
            address: {mac: heard for mac, heard in voices.items() if now < heard + ASK_CONFLICT_AGAIN}
            for address, voices in self._contested.items()
        }
        for address, inquiry in list(self._inquiries.items()):
            if inquiry.due > now:
                continue
            if inquiry.sent < TIMES:
                inquiry.sent += 1
                questions.append((inquiry.interface, address))
                low, high = _BETWEEN
                inquiry.due = now + (_LISTEN if inquiry.sent == TIMES else low + self._draw() * (high - low))
            else:
                self._conclude(address, inquiry, now)
        return questions

    def _conclude(self, address: Address, inquiry: _Inquiry, now: float) -> None:
        if address in self._held:
            if self._contested.get(address):
                # Before what was heard is forgotten: whoever has it may say nothing unasked.
                inquiry.sent, inquiry.due = 0, now + ASK_CONFLICT_AGAIN * (0.7 + self._draw() / 10)
            else:
                del self._inquiries[address]
            return
        self._answers[address] = _Answered(inquiry.interface, tuple(inquiry.heard))
        again = ASK_CONFLICT_AGAIN if inquiry.heard and not inquiry.decoy else ASK_AGAIN
        inquiry.sent, inquiry.heard = 0, {}
        inquiry.due = now + again * (1 + self._draw() / 10)

    def unheard(self, interface: str, now: float) -> None:
        """Nobody could be asked on an interface: silence there means nothing, and everything is begun anew later."""
        for inquiry in self._inquiries.values():
            if inquiry.interface == interface and inquiry.sent:
                inquiry.sent, inquiry.heard = 0, {}
                inquiry.due = now + _PAUSE * (1 + self._draw())

    def hear(self, interface: str, address: Address, mac: str, now: float) -> None:
        """Somebody on an interface says to have an address."""
        if self._held.get(address) == interface:
            voices = self._contested.setdefault(address, {})
            if mac in voices or len(voices) < _VOICES:
                voices[mac] = now
        inquiry = self._inquiries.get(address)
        if inquiry is not None and inquiry.sent and inquiry.interface == interface and len(inquiry.heard) < _VOICES:
            inquiry.heard[mac] = None

    def everybodys(self) -> frozenset[tuple[str, str]]:
        """(interface, MAC) of who answers for everything there."""
        return frozenset(
            (said.interface, mac)
            for address, said in self._answers.items()
            if (inquiry := self._inquiries.get(address)) is not None and inquiry.decoy
            for mac in said.macs
        )

    def occupied(self, ours: Callable[[], frozenset[str]]) -> dict[Address, tuple[str, str]]:
        """Address -> (MAC, interface) of somebody else who has it. `ours` gives the MACs of this cluster's nodes; it is
        asked for only when there was an answer."""
        found = {a: _Answered(self._held[a], tuple(voices)) for a, voices in self._contested.items()}
        for address, said in self._answers.items():
            inquiry = self._inquiries.get(address)
            if not (inquiry is not None and inquiry.decoy) and (said.settled or self._decoys_asked(said.interface)):
                found[address] = said
        if not any(said.macs for said in found.values()):
            return {}
        nobodys, nodes = self.everybodys(), ours()
        others = {
            address: [mac for mac in said.macs if mac not in nodes and (said.interface, mac) not in nobodys]
            for address, said in found.items()
        }
        return {address: (macs[0], found[address].interface) for address, macs in others.items() if macs}

    def _decoys_asked(self, interface: str) -> bool:
        return all(
            address in self._answers
            for address, inquiry in self._inquiries.items()
            if inquiry.decoy and inquiry.interface == interface
        )
