"""What others' rules do with packet marks, read from the kernel: nftables, iptables by its nftables backend, ip rules.

nft's own listing is of no use here: what iptables-nft loads stands in it without its content. So the kernel's
expressions are read as they are (linux/netfilter/nf_tables.h), registers and all.

Invariants: reads only; our own tables and ip rules are left out; what is not understood is left out too, but for a mark
that is set from something unknown, which counts as the whole mark. A node may have ten thousands of rules, nearly none
of which is about marks: those are passed over by a look for a few bytes.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from sluice_node.core.preflight import ALL, Act, MarkUse
from sluice_node.core.routing import PROTOCOL
from sluice_node.core.ruleset import TABLE
from sluice_node.kernel.errors import KernelError
from sluice_node.kernel.raw import (
    DUMP,
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    REQUEST,
    RawNetlink,
    attribute,
    attributes,
    elements,
)

_NF_TABLES: Final = 10 << 8
_GET_CHAIN, _GET_RULE = _NF_TABLES | 4, _NF_TABLES | 7
_GENERIC: Final = struct.Struct("!BBH")
_FAMILIES: Final[Mapping[int, str]] = {1: "inet", 2: "ip", 5: "netdev", 7: "bridge", 10: "ip6"}
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY = 1, 3, 4, 5
_HOOK_NUMBER, _FORWARD, _DROP = 1, 2, 0
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS = 1, 2, 4
_NAME, _DATA, _VALUE = 1, 2, 1
_MARK: Final = 3
"""NFT_META_MARK, and NFT_CT_MARK."""
_FIB_OIF, _FIB_SADDR, _FIB_IIF = 1, 1, 8
_RPFILTER_LOOSE: Final = 1
_CONNMARK_RESTORE: Final = 2
_GET_IP_RULE: Final = 34
_IP_RULE_HEADER: Final = 12
_INVERTED: Final = 2
_IP_RULE_PREFERENCE, _IP_RULE_MARK, _IP_RULE_MASK, _IP_RULE_PROTOCOL = 6, 10, 16, 21

_META_KEY: Final = 2
_WORDS: Final = (
    attribute(_META_KEY, _MARK.to_bytes(4, "big")),
    b"mark\0",
    b"MARK\0",
    b"fib\0",
    b"rpfilter\0",
)
"""What a rule that is about marks or reverse paths has in it, whatever else does."""


@dataclass(slots=True)
class Foreign:
    """What was found."""

    marks: list[MarkUse] = field(default_factory=list)
    drops: list[str] = field(default_factory=list)
    rpfilter6: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


def read() -> Foreign:
    """Look at everybody's nftables and ip rules in the network namespace of the calling thread. Raises KernelError."""
    found = Foreign()
    try:
        _nftables(found)
        _ip_rules(found)
    except OSError as error:
        raise KernelError(f"cannot read others' rules: {error.strerror}") from error
    return found


def _nftables(found: Foreign) -> None:
    netlink = RawNetlink(NETLINK_NETFILTER)
    try:
        for body in netlink.ask(_GET_CHAIN, flags=REQUEST | DUMP, body=_GENERIC.pack(0, 0, 0)):
            _chain(body, found)
        for body in netlink.ask(_GET_RULE, flags=REQUEST | DUMP, body=_GENERIC.pack(0, 0, 0)):
            if any(word in body for word in _WORDS):
                _rule(body, found)
    finally:
        netlink.close()


def _chain(body: bytes, found: Foreign) -> None:
    values = attributes(body[_GENERIC.size :])
    table, name = _text(values.get(_CHAIN_TABLE)), _text(values.get(_CHAIN_NAME))
    if table == TABLE or _CHAIN_HOOK not in values:
        return
    hook = _big(attributes(values[_CHAIN_HOOK]).get(_HOOK_NUMBER))
    family = _FAMILIES.get(body[0], "")
    if hook == _FORWARD and family in ("inet", "ip", "ip6") and _big(values.get(_CHAIN_POLICY)) == _DROP:
        found.drops.append(f"table {family} {table} chain {name}")


def _rule(body: bytes, found: Foreign) -> None:
    values = attributes(body[_GENERIC.size :])
    table = _text(values.get(_RULE_TABLE))
    if table == TABLE:
        return
    family = _FAMILIES.get(body[0], "?")
    where = f"table {family} {table} chain {_text(values.get(_RULE_CHAIN))}"
    machine = Machine(where)
    for element in elements(values.get(_RULE_EXPRESSIONS, b"")):
        expression = attributes(element)
        machine.step(_text(expression.get(_NAME)), attributes(expression.get(_DATA, b"")))
    found.marks += machine.uses
    if machine.reverse_path and family in ("inet", "ip6"):
        found.rpfilter6.append(where)


@dataclass(frozen=True, slots=True)
class _Mark:
    """A register that holds `(mark & keep) ^ flip`."""

    keep: int = ALL
    flip: int = 0


class Machine:
    """Follows the registers of one rule as far as they have to do with the packet's mark."""

    def __init__(self, where: str) -> None:
        self.uses: list[MarkUse] = []
        self.reverse_path = False
        self.where = where
        self._registers: dict[int, _Mark | None] = {}

    def step(self, name: str, values: Mapping[int, bytes]) -> None:
        """One expression."""
        if name == "meta":
            self._meta(values)
        elif name == "bitwise":
            self._bitwise(values)
        elif name == "cmp":
            self._compare(values)
        elif name == "lookup":
            mark = self._registers.get(_register(values.get(2)))
            if mark is not None:
                self._use(Act.TEST, mark.keep, None)
        elif name == "fib":
            flags = _big(values.get(3))
            self.reverse_path |= _big(values.get(2)) == _FIB_OIF and flags & _FIB_SADDR != 0 and flags & _FIB_IIF != 0
        elif name in ("match", "target"):
            self.extension(name, _text(values.get(1)), _big(values.get(2)), values.get(3, b""))
        elif name in ("immediate", "ct", "payload"):
            self._registers.pop(_register(values.get(1)), None)

    def _meta(self, values: Mapping[int, bytes]) -> None:
        key, source = _big(values.get(2)), values.get(3)
        if source is None:
            if key == _MARK:
                self._registers[_register(values.get(1))] = _Mark()
            else:
                self._registers.pop(_register(values.get(1)), None)
        elif key == _MARK:
            mark = self._registers.get(_register(source))
            changed = (ALL ^ mark.keep) | mark.flip if mark is not None else ALL
            self._use(Act.CHANGE, changed, None)

    def _bitwise(self, values: Mapping[int, bytes]) -> None:
        mark = self._registers.get(_register(values.get(1)))
        target = _register(values.get(2))
        mask, flip = (attributes(values.get(kind, b"")).get(_VALUE) for kind in (4, 5))
        if mark is None or mask is None or flip is None or len(mask) != 4 or _big(values.get(6)):
            self._registers.pop(target, None)
            return
        keep, changed = _native(mask), _native(flip)
        self._registers[target] = _Mark(mark.keep & keep, (mark.flip & keep) ^ changed)

    def _compare(self, values: Mapping[int, bytes]) -> None:
        mark = self._registers.get(_register(values.get(1)))
        value = attributes(values.get(3, b"")).get(_VALUE)
        if mark is None or value is None or len(value) != 4:
            return
        operator = _big(values.get(2))
        equal, unequal = operator == 0, operator == 1
        wanted = _native(value) ^ mark.flip
        if unequal and mark.keep == ALL:
            return  # true of nearly every packet: ours are treated as those without a mark
        self._use(Act.TEST, mark.keep, wanted if equal else None)

    def extension(self, kind: str, name: str, revision: int, info: bytes) -> None:
        """A match or target of iptables, in its own structure (linux/netfilter/xt_*.h)."""
        if (kind, name) == ("match", "mark") and revision == 1 and len(info) >= 9:
            value, mask, inverted = struct.unpack_from("=IIB", info)
            if not (inverted and mask == ALL):
                self._use(Act.TEST, mask, value if not inverted else None)
        elif (kind, name) == ("target", "MARK") and revision == 2 and len(info) >= 8:
            value, mask = struct.unpack_from("=II", info)
            self._use(Act.CHANGE, value | mask, None)
        elif (kind, name) == ("target", "CONNMARK") and len(info) >= 15:
            # Revision 2 has two bytes about a shift before the mode.
            if info[14 if revision > 1 else 12] == _CONNMARK_RESTORE:
                self._use(Act.CHANGE, _native(info[8:12]), None)
        elif (kind, name) == ("match", "rpfilter") and info:
            self.reverse_path |= not info[0] & _RPFILTER_LOOSE

    def _use(self, act: Act, mask: int, value: int | None) -> None:
        if mask:
            self.uses.append(MarkUse(self.where, act, mask, value))


def _ip_rules(found: Foreign) -> None:
    netlink = RawNetlink(NETLINK_ROUTE)
    try:
        for version, family in ((4, 2), (6, 10)):
            header = bytes((family,)) + bytes(_IP_RULE_HEADER - 1)
            for body in netlink.ask(_GET_IP_RULE, flags=REQUEST | DUMP, body=header):
                values = attributes(body[_IP_RULE_HEADER:])
                mark, mask = (_number(values.get(kind)) for kind in (_IP_RULE_MARK, _IP_RULE_MASK))
                if not mask or body[0] != family or values.get(_IP_RULE_PROTOCOL) == bytes((PROTOCOL,)):
                    continue
                inverted = struct.unpack_from("=I", body, 8)[0] & _INVERTED
                if inverted and mask == ALL:
                    continue
                where = f"ip {'-6 ' if version == 6 else ''}rule {_number(values.get(_IP_RULE_PREFERENCE))}"
                found.marks.append(MarkUse(where, Act.TEST, mask, None if inverted else mark))
    finally:
        netlink.close()


def _register(data: bytes | None) -> int:
    """A register's number; those of 16 bytes begin where every fourth of 4 bytes does."""
    number = _big(data)
    return 8 + 4 * (number - 1) if 1 <= number <= 4 else number


def _text(data: bytes | None) -> str:
    return (data or b"").rstrip(b"\0").decode(errors="replace")


def _big(data: bytes | None) -> int:
    return int.from_bytes(data or b"", "big")


def _native(data: bytes) -> int:
    return int(struct.unpack("=I", data)[0])


def _number(data: bytes | None) -> int:
    return _native(data) if data is not None and len(data) == 4 else 0
