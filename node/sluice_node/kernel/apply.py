"""Make the node's kernel what a DesiredNode says.

Order: the tunnel, its peers and routes, which do nothing while no packet is marked; then the rules, in one atomic
transaction that holds guard, translation and steering together; then the connections that these rules would not have
made are forgotten; then the answers for egress IPs; last what is no longer wanted is taken away. So whenever it stops
half way, packets are dropped rather than let out. An egress IP that is given up stays in the guard's sight until no
connection bears it.

What one egress IP, peer or policy needs is done for each by itself: what the kernel refuses of it is reported, and
keeps nothing else from being done. What the whole node rests on raises KernelError.

Blocking: call it from a worker thread, never from the event loop's.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final

from sluice_node.core import diff, routing
from sluice_node.core.desired import Address, DesiredNode, PolicyProgram
from sluice_node.core.failures import Failure, keeping
from sluice_node.core.flows import Flow, egress_ips
from sluice_node.core.marks import number_peers
from sluice_node.core.routing import Plumbing, Tunnel
from sluice_node.core.ruleset import EMPTY, TABLE, ruleset
from sluice_node.core.tables import Ruleset, Set
from sluice_node.core.view import VERSIONS, View
from sluice_node.kernel.announce import Announcer
from sluice_node.kernel.conntrack import Conntrack
from sluice_node.kernel.errors import KernelError
from sluice_node.kernel.isolate import split
from sluice_node.kernel.items import Items
from sluice_node.kernel.neighbours import forget
from sluice_node.kernel.netlink import Netlink
from sluice_node.kernel.nft import Nft, Watch
from sluice_node.kernel.report import Report
from sluice_node.kernel.settings import Settings

_STATE: Final = Path("/run/sluice")


class Kernel:
    """This node's kernel. `sysctl_root` is /proc/sys/net or where the host's is mounted."""

    def __init__(self, sysctl_root: Path = Path("/proc/sys/net"), *, state: Path = _STATE) -> None:
        self._root = sysctl_root
        self._settings = Settings(sysctl_root, state / "settings.json")
        self._nft = Nft()
        self._watch = Watch(TABLE)
        self._netlink = Netlink()
        self._conntrack = Conntrack()
        self._announcer = Announcer()
        self._rules: Ruleset | None = None
        self._plumbing = Plumbing()
        self._desired: DesiredNode | None = None
        self._numbers: dict[str, int] = {}
        self._last: tuple[View, tuple[Set, ...]] | None = None
        self._unclean = False
        self._taken: frozenset[PolicyProgram] = frozenset()
        self._refused: Mapping[PolicyProgram, str] = {}

    def apply(self, desired: DesiredNode, *, anew: bool = False) -> Report:
        """Make the kernel hold `desired`, changing only what differs from what is there.

        A policy that the kernel refused stays out until it changes, or `anew`: finding out for whose sake a transaction
        is refused takes several. Raises KernelError when the node as a whole cannot be programmed; then the state is
        between the last and this one, and the next apply starts from what it finds.
        """
        mtu = self._mtu(desired)
        wanted = routing.plumbing(desired, mtu=mtu, ipv6=self._has_ipv6())
        try:
            self._numbers = number_peers((peer.node for peer in desired.peers), self._numbers)
        except ValueError as error:
            raise KernelError(f"too many nodes: {error}") from error
        # What a step that fails half way made of the connections is not known: the next apply judges all of them.
        before, self._desired = None if self._unclean else self._desired, None
        items = Items()
        changes = self._prepare(wanted, desired, items)
        former = self._egress_ips(before)
        known = frozenset(self._last[0].egress_ips) if self._last is not None else frozenset()
        view, rules = self._take(desired, former, mtu=mtu, anew=anew)
        desired = view.desired
        items.failures += [Failure(why, policy_id=policy.policy_id) for policy, why in self._refused.items()]
        retired = former - frozenset(view.egress_ips)
        cut, left = self._conntrack.clean(before, desired, retired=retired)
        items.failures += [Failure(why) for why in left]
        self._unclean = bool(left)  # then the guard goes on knowing what was given up
        if retired and not left:
            rules += self._load(view)
        changes += self._connect(wanted, items)
        announced = self._answer(wanted, items)
        changes += self._tidy(wanted, items)
        self._plumbing = self._achieved(wanted, items)
        items.each(retired | (known - frozenset(view.egress_ips)), lambda address: forget([address], desired.uplinks))
        self._desired = desired
        return Report(rules, changes, cut, announced, tuple(items.failures))

    def _take(self, desired: DesiredNode, former: frozenset[Address], *, mtu: int, anew: bool) -> tuple[View, int]:
        """Load the rules with every policy that the kernel takes; gives what it holds then, but for the egress IPs
        that are given up, and how much was loaded."""
        known = {} if anew else {p: self._refused[p] for p in desired.policies if p in self._refused}
        loaded, last = 0, View(desired, self._numbers, mtu)

        def load(policies: Sequence[PolicyProgram]) -> None:
            nonlocal loaded, last
            view = View(keeping(desired, policies), self._numbers, mtu)
            retired = former - frozenset(view.egress_ips)
            loaded += self._load(replace(view, retired=retired) if retired else view)
            last = view

        taken, refused = split([p for p in desired.policies if p not in known], load, good=self._taken)
        self._taken, self._refused = frozenset(taken), known | refused
        return last, loaded

    def _egress_ips(self, before: DesiredNode | None) -> frozenset[Address]:
        """The egress IPs that connections may bear: those of the last apply or, after a start or when it failed, those
        that the kernel holds, as another process may have put them there."""
        if before is not None:
            return egress_ips(before)
        found = set()
        for version in VERSIONS:
            for element in self._nft.elements(table=TABLE, name=f"egress_ips{version}"):
                with suppress(ValueError):  # whatever else somebody put under our name is no address of ours
                    found.add(ip_address(element))
        return frozenset(found)

    def _mtu(self, desired: DesiredNode) -> int:
        if not desired.uplinks:
            raise KernelError("this node has no uplink: no interface leads out of it")
        return routing.tunnel_mtu(desired.tunnel_address, self._netlink.link(desired.uplinks[0]).mtu)

    def _has_ipv6(self) -> bool:
        try:
            return (self._root / "ipv6/conf/all/disable_ipv6").read_text().strip() == "0"
        except FileNotFoundError:
            return False

    def _prepare(self, wanted: Plumbing, desired: DesiredNode, items: Items) -> int:
        """The tunnel, still down if it is new, its peers, and the rules that lead to it or nowhere."""
        held = self._netlink.read()
        count = 0
        if wanted.tunnel is not None and not _same_device(wanted.tunnel, held.tunnel):
            if self._netlink.make_tunnel(wanted.tunnel, held.tunnel):
                self._rules = None  # the egress hook went with the old device
                held = self._netlink.read()
            count += 1
        count += self._hold_settings(wanted, desired, items)
        for stray in {(rule.version, rule.preference) for rule in held.rules - wanted.rules}:
            self._netlink.clear_rules(*stray)
            count += 1
        for rule in wanted.rules - self._netlink.read().rules if count else wanted.rules - held.rules:
            self._netlink.rule(rule)
            count += 1
        # A peer that cannot be set answers no probe, so nobody here uses it as a gateway.
        return count + items.each(wanted.ends - held.ends, lambda item: self._netlink.end("replace", item))

    def _hold_settings(self, wanted: Plumbing, desired: DesiredNode, items: Items) -> bool:
        values = dict(wanted.settings)
        held = self._settings.hold(values)
        for path, why in held.refused.items():
            if path in values and not routing.of_answers(path):
                raise KernelError(why)
            for address in routing.answered_by(path, desired) or (None,):
                items.miss((path, values.get(path)), Failure(why, unanswered=address))
        return held.changed

    def _load(self, view: View) -> int:
        """The rules, as a change of what is there or, when that is not known, in its place."""
        rules, slices = ruleset(view, self._last)
        self._last = (view, slices)
        known = self._rules if self._watch.generations() == 0 else None
        text = diff.replacement(rules) if known is None else diff.transaction(known, rules)
        self._rules = None
        if text:
            try:
                self._nft.run(text)
            except KernelError:
                # Taken whole or not at all: what was known still holds, unless somebody else was at it.
                self._rules = known if self._watch.generations() == 0 else None
                raise
            if (self._watch.generations() or 1) > 1:
                return len(text)  # someone changed our tables meanwhile: the next check says so
        self._rules = rules
        return len(text)

    def _connect(self, wanted: Plumbing, items: Items) -> int:
        """The tunnel up, and what needs it up."""
        held = self._netlink.read()
        count = 0
        if wanted.tunnel is not None and wanted.tunnel != held.tunnel:
            self._netlink.raise_tunnel()
            held = self._netlink.read()
            count += 1
        for neighbour in wanted.neighbours - held.neighbours:
            self._netlink.neighbour("replace", neighbour)
            count += 1
        addresses = {ip_network(answer.address): answer.address for answer in wanted.answers}
        missing = wanted.routes - held.routes
        for route in missing:
            if route.destination not in addresses:
                self._netlink.route("replace", route)
                count += 1
        return count + items.each(
            (route for route in missing if route.destination in addresses),
            lambda item: self._netlink.route("replace", item),
            serves=lambda item: addresses[item.destination],
        )

    def _answer(self, wanted: Plumbing, items: Items) -> int:
        """The answers for egress IPs, announced when they are new here or were lost with their interface."""
        for item in self._plumbing.answers - wanted.answers:
            self._announcer.stop(item.address)
        held = self._netlink.read().answers
        items.each(
            wanted.answers - held,
            lambda item: self._netlink.answer("replace", item),
            serves=lambda item: item.address,
        )
        unanswered = {failure.unanswered for failure in items.failures}
        new = {a for a in wanted.answers - (held & self._plumbing.answers) if a.address not in unanswered}
        return items.each(
            new,
            lambda a: self._announcer.start([(a.address, a.interface, self._netlink.link(a.interface).mac)]),
            serves=lambda a: a.address,
        )

    def _tidy(self, wanted: Plumbing, items: Items) -> int:
        """Take away what is ours and no longer wanted."""
        held = self._netlink.read()
        count = items.each(held.answers - wanted.answers, lambda item: self._netlink.answer("del", item))
        count += items.each(held.routes - wanted.routes, lambda item: self._netlink.route("del", item))
        count += items.each(held.ends - wanted.ends, lambda item: self._netlink.end("del", item))
        return count + items.each(
            held.neighbours - wanted.neighbours, lambda item: self._netlink.neighbour("del", item)
        )

    def _achieved(self, wanted: Plumbing, items: Items) -> Plumbing:
        """What the kernel holds after an apply: `wanted`, but for what it refused to take or to let go."""
        if not items.missed:
            return wanted
        held = self._netlink.read()
        there = {path for path, _ in self._settings.held(path for path, _ in wanted.settings)}
        return replace(
            wanted,
            ends=held.ends,
            neighbours=held.neighbours,
            routes=held.routes,
            answers=held.answers,
            settings=frozenset(item for item in wanted.settings - items.missed if item[0] in there),
        )

    def check(self) -> bool:
        """Whether everything of the last apply is still there; also repeats announcements that are due.

        Cheap enough for every second: it reads what others changed in our tables from the kernel's notices, and the
        few routes, rules and neighbours themselves.
        """
        self._announcer.repeat()
        if self._rules is None or self._desired is None:
            return False
        if self._watch.generations() != 0:
            self._rules = None
            return False
        settings = self._settings.held(path for path, _ in self._plumbing.settings)
        same = replace(self._netlink.read(), settings=settings) == self._plumbing
        return same and self._plumbing.tunnel is not None and self._plumbing.tunnel.mtu == self._mtu(self._desired)

    def counters(self) -> dict[str, int]:
        """Packets dropped, by reason."""
        inet = self._nft.counters(family="inet", table=TABLE)
        return inet | self._nft.counters(family="netdev", table=TABLE)

    def egress_ips(self) -> frozenset[Address]:
        """The egress IPs in the kernel's rules, also when another process put them there."""
        return self._egress_ips(None)

    def opened_by(self, source: Address) -> list[Flow]:
        """The tracked connections that an address has opened."""
        return self._conntrack.opened_by(source)

    def remove(self) -> None:
        """Take everything of ours out of the node, and give back the settings that were changed.

        Connections that bear an egress IP are forgotten, so that they end rather than go on with it. Which addresses
        those are the kernel's sets tell, as the process that put them there may have been another.
        """
        known = self.egress_ips()
        self._nft.run(diff.removal(EMPTY))
        self._watch.generations()
        items = Items()
        self._tidy(Plumbing(), items)
        for rule in self._netlink.read().rules:
            self._netlink.clear_rules(rule.version, rule.preference)
        self._netlink.remove_tunnel()
        held = self._settings.hold({})
        self._conntrack.forget(known)
        self._rules, self._desired, self._plumbing = None, None, Plumbing()
        left = [failure.message for failure in items.failures] + list(held.refused.values())
        if left:
            raise KernelError("; ".join(left))

    def close(self) -> None:
        """Let go of the sockets; what the kernel holds stays."""
        for part in (self._nft, self._watch, self._netlink, self._conntrack, self._announcer):
            part.close()


def _same_device(wanted: Tunnel, held: Tunnel | None) -> bool:
    return held is not None and replace(held, up=wanted.up) == wanted
