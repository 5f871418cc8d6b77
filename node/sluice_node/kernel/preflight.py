"""Reads the facts that `core.preflight` judges: tries features, and looks at others' rules and settings.

Invariants: changes nothing; a trial is a transaction that the kernel checks whole and does not commit. Blocking.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from sluice_node.core.preflight import Facts, Trial
from sluice_node.kernel import foreign, legacy
from sluice_node.kernel.errors import KernelError
from sluice_node.kernel.nft import Nft

_TABLE: Final = "sluice-trial"
_STRICT: Final = "1"
_SEVERAL: Final = 2

_TRIALS: Final = (
    (
        "egress hook of network devices",
        "leading packets into the tunnel",
        "5.16",
        f"""
        add table netdev {_TABLE}
        add chain netdev {_TABLE} c {{ type filter hook egress device "lo" priority 0; policy accept; }}
        add rule netdev {_TABLE} c meta mark set meta mark & 0x3fff accept
        """,
    ),
    (
        "translation in inet tables",
        "egress IPs",
        "5.2",
        f"""
        add table inet {_TABLE}
        add chain inet {_TABLE} c {{ type nat hook postrouting priority 99; policy accept; }}
        add rule inet {_TABLE} c meta nfproto ipv4 meta l4proto tcp snat ip to 192.0.2.1:1024-2047
        add rule inet {_TABLE} c meta nfproto ipv6 meta l4proto udp snat ip6 to [2001:db8::1]:1024-2047
        """,
    ),
    (
        "rerouting in inet tables",
        "the proxy's connections",
        "5.2",
        f"""
        add table inet {_TABLE}
        add chain inet {_TABLE} c {{ type route hook output priority -90; policy accept; }}
        """,
    ),
    (
        "look-up of local addresses",
        "telling the node's own addresses",
        "4.10",
        f"""
        add table inet {_TABLE}
        add chain inet {_TABLE} c {{ type filter hook prerouting priority -90; policy accept; }}
        add rule inet {_TABLE} c fib daddr type {{ local, broadcast, multicast }} accept
        """,
    ),
    (
        "symmetric hash of flows",
        "the choice of a gateway",
        "4.12",
        f"""
        add table inet {_TABLE}
        add chain inet {_TABLE} c
        add rule inet {_TABLE} c symhash mod 2 0 accept
        """,
    ),
    (
        "untracked packets, maps by parts of ports",
        "gateways without state",
        "4.14",
        f"""
        add table inet {_TABLE}
        add map inet {_TABLE} m {{ typeof ip daddr . @th,16,6 : meta mark; }}
        add chain inet {_TABLE} c {{ type filter hook prerouting priority -300; policy accept; }}
        add rule inet {_TABLE} c meta l4proto tcp meta mark set ip daddr . @th,16,6 map @m notrack accept
        add rule inet {_TABLE} c meta nfproto ipv4 tcp flags & syn == syn tcp option maxseg size set 1400
        """,
    ),
)


def read_facts(sysctl_root: Path, uplinks: Iterable[str] = ()) -> Facts:
    """Look at this node. `sysctl_root` is /proc/sys/net or where the host's is mounted. Raises KernelError."""
    found = foreign.read()
    legacy.read(found)
    return Facts(
        release=os.uname().release,
        trials=tuple(_tried()),
        marks=tuple(found.marks),
        drops=tuple(found.drops),
        strict=tuple(_strict(sysctl_root, sorted(set(uplinks)))),
        rpfilter6=tuple(found.rpfilter6),
        unread=tuple(found.unread),
    )


def _tried() -> Iterator[Trial]:
    nft = Nft()
    try:
        for feature, needed_for, since, commands in _TRIALS:
            refused = ""
            try:
                nft.run("\n".join(line.strip() for line in commands.strip().splitlines()), dry=True)
            except KernelError as error:
                refused = str(error)
            yield Trial(feature, needed_for, since, refused)
    finally:
        nft.close()


def _strict(root: Path, uplinks: list[str]) -> Iterator[str]:
    """The uplinks whose reverse path check is strict, where that can matter: the kernel takes the larger value of the
    interface's and that of all (Documentation/networking/ip-sysctl.rst)."""
    if len(uplinks) < _SEVERAL:
        return
    for name in uplinks:
        values = {_value(root / "ipv4/conf" / which / "rp_filter") for which in ("all", name)}
        if max(values, default="") == _STRICT:
            yield name


def _value(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
