"""What others load into a kernel is found there and judged rightly, whoever loads it and by whichever backend."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.netns.datapath_cluster import MARKS
from tests.netns.datapath_topology import Namespace

from sluice_api.reasons import Reason
from sluice_node.core.preflight import Act, Facts, MarkUse, judge
from sluice_node.kernel.preflight import read_facts

pytestmark = MARKS

KUBE_PROXY = (
    "iptables-nft -t nat -N KUBE-MARK-MASQ",
    "iptables-nft -t nat -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000",
    "iptables-nft -t nat -A POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
    "iptables-nft -t nat -A POSTROUTING -j MARK --xor-mark 0x4000",
    "iptables-nft -A FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT",
    "iptables-nft -A INPUT -m mark --mark 0x8000/0x8000 -j DROP",
)
PORTMAP = (
    "iptables-nft -t nat -N CNI-HOSTPORT-SETMARK",
    "iptables-nft -t nat -A CNI-HOSTPORT-SETMARK -j MARK --set-xmark 0x2000/0x2000",
    "iptables-nft -t nat -A POSTROUTING -m mark --mark 0x2000/0x2000 -j MASQUERADE",
)
FIREWALL = ("nft add table inet fw", "nft add chain inet fw pre")
NFT_KUBE_PROXY = """
table ip kube-proxy {
    chain mark-for-masquerade {
        meta mark set meta mark | 0x4000
    }
    chain masquerading {
        type nat hook postrouting priority srcnat
        meta mark & 0x4000 == 0 return
        meta mark set meta mark ^ 0x4000
        masquerade fully-random
    }
}
table inet cni_hostport {
    chain masquerading {
        type nat hook postrouting priority srcnat
        meta mark & 0x2000 == 0x2000 masquerade
    }
}
table inet sluice {
    chain guard {
        type filter hook postrouting priority 200
        meta mark & 0x10000000 == 0x10000000 drop
    }
}
"""


@pytest.fixture(name="space")
def _space() -> Iterator[Namespace]:
    made = Namespace(f"sl{os.getpid()}-pre")
    yield made
    made.close()


def facts(space: Namespace) -> Facts:
    return space.call(read_facts, Path("/proc/sys/net"), ("lo", "lo2"))


def reason(space: Namespace) -> Reason | None:
    obstacle = judge(facts(space)).obstacle
    return obstacle.reason if obstacle is not None else None


def load(space: Namespace, *commands: str) -> None:
    for command in commands:
        space.sh(*command.split())


def test_this_kernel_has_what_is_needed_and_a_bare_node_is_no_obstacle(space: Namespace) -> None:
    found = facts(space)
    assert [trial for trial in found.trials if trial.refused] == []
    assert judge(found).obstacle is None
    assert space.sh("nft", "list", "ruleset").strip() == "", "trying leaves nothing behind"


def test_a_feature_that_is_not_there_is_an_obstacle_that_names_it(
    space: Namespace,
) -> None:
    missing = space.call(_try_what_no_kernel_has)
    assert missing.reason is Reason.UNSUPPORTED_KERNEL
    assert "time travel (Linux 9.9; for going back): nftables refused the rules" in missing.message


def _try_what_no_kernel_has() -> object:
    from sluice_node.kernel import preflight

    preflight._TRIALS = (  # type: ignore[misc]
        (
            "time travel",
            "going back",
            "9.9",
            'add table netdev t\nadd chain netdev t c { type nat hook egress device "lo" priority 0; }',
        ),
    )
    return judge(preflight.read_facts(Path("/proc/sys/net"))).obstacle


@pytest.mark.parametrize("commands", [KUBE_PROXY, PORTMAP], ids=["kube-proxy", "portmap"])
def test_those_that_every_cluster_has_are_no_obstacle(space: Namespace, commands: tuple[str, ...]) -> None:
    load(space, *commands)
    found = facts(space)
    assert len(found.marks) >= 2, "they are seen"
    assert judge(found).obstacle is None
    assert judge(found).warnings == ()


def test_nor_are_they_in_nftables_nor_is_sluice_itself(space: Namespace) -> None:
    space.sh("nft", "-f", "-", text=NFT_KUBE_PROXY)
    load(space, "ip rule add not fwmark 0/0xfff0000 table 7100 pref 600 protocol 101")
    found = facts(space)
    assert {use.mask for use in found.marks} == {0x4000, 0x2000}
    assert judge(found).obstacle is None


@pytest.mark.parametrize(
    "commands",
    [
        ("iptables-nft -A FORWARD -m mark --mark 0x10000/0x10000 -j ACCEPT",),
        ("iptables-nft -t mangle -A PREROUTING -j MARK --set-xmark 0x0/0xf0000",),
        ("ip6tables-nft -t mangle -A PREROUTING -j MARK --set-xmark 0x40000/0x40000",),
        ("iptables-nft -t raw -A PREROUTING -m mark --mark 0xe00/0xf00 -j ACCEPT",),
        ("iptables-nft -t mangle -A PREROUTING -j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80",),
        ("ip rule add fwmark 0x200/0xf00 lookup 2004 pref 9",),
        ("ip -6 rule add fwmark 0x80000/0xff0000 lookup main pref 5210",),
        ("ip rule add fwmark 0x10000 lookup 99",),
        ("nft add table inet x", "nft add chain inet x y", "nft add rule inet x y meta mark & 0xf0000 != 0 accept"),
        ("nft add table inet x", "nft add chain inet x y", "nft add rule inet x y meta mark set meta mark | 0x100000"),
        ("nft add table inet x", "nft add chain inet x y", "nft add rule inet x y meta mark set meta mark & 0xffff"),
    ],
    ids=lambda commands: commands[-1],
)
def test_whoever_uses_our_bits_under_a_mask_is_an_obstacle_and_is_named(
    space: Namespace, commands: tuple[str, ...]
) -> None:
    load(space, *commands)
    found = judge(facts(space)).obstacle
    assert found is not None
    assert found.reason is Reason.MARKS_IN_USE
    assert "table " in found.message or "rule " in found.message
    assert "another mask" in found.message


@pytest.mark.parametrize(
    "commands",
    [
        ("nft add table inet x", "nft add chain inet x y", "nft add rule inet x y ct mark set meta mark"),
        ("nft add table inet x", "nft add chain inet x y", "nft add rule inet x y ct mark & 0xf0000 != 0 accept"),
        ("nft add table inet x", "nft add chain inet x y", "nft add rule inet x y tcp dport 0x1234 accept"),
        ("ip rule add not fwmark 0xca6c lookup 51820",),
        ("ip rule add fwmark 0xca6c lookup 51820",),
        ("iptables-nft -t mangle -A PREROUTING -m mark ! --mark 0x5 -j ACCEPT",),
    ],
    ids=lambda commands: commands[-1],
)
def test_what_cannot_be_a_packet_of_ours_is_neither_obstacle_nor_warning(
    space: Namespace, commands: tuple[str, ...]
) -> None:
    load(space, *commands)
    assert judge(facts(space)) == judge(Facts(release=facts(space).release))


@pytest.mark.parametrize(
    "commands",
    [
        ("nft add table inet x", "nft add chain inet x y", "nft add rule inet x y meta mark set ct mark"),
        ("nft add table inet x", "nft add chain inet x y", "nft add rule inet x y meta mark set 0x1"),
        ("iptables-nft -t mangle -A OUTPUT -j MARK --set-mark 0x1",),
        ("ip rule add fwmark 0x1 lookup 100",),
    ],
    ids=lambda commands: commands[-1],
)
def test_who_uses_the_whole_mark_is_warned_of(space: Namespace, commands: tuple[str, ...]) -> None:
    load(space, *commands)
    found = judge(facts(space))
    assert found.obstacle is None
    assert any("whole packet mark" in warning for warning in found.warnings)


def test_a_chain_that_drops_what_it_is_not_told_to_forward_is_warned_of(space: Namespace) -> None:
    load(space, "iptables-nft -P FORWARD DROP")
    (warning,) = judge(facts(space)).warnings
    assert "table ip filter chain FORWARD" in warning


def test_a_strict_reverse_path_check_is_warned_of_where_there_are_two_ways_out(space: Namespace) -> None:
    load(space, "ip link add lo2 type veth peer name lo3", "sysctl -qw net.ipv4.conf.lo2.rp_filter=1")
    assert facts(space).strict == ("lo2",)
    load(space, "sysctl -qw net.ipv4.conf.all.rp_filter=2")
    assert facts(space).strict == ()


@pytest.mark.parametrize(
    ("commands", "strict"),
    [
        (("ip6tables-nft -t raw -A PREROUTING -m rpfilter --invert -j DROP",), True),
        (("ip6tables-nft -t raw -A PREROUTING -m rpfilter --loose --invert -j DROP",), False),
        (
            (
                "nft add table inet fw",
                "nft add chain inet fw pre",
                "nft add rule inet fw pre fib saddr . iif oif missing drop",
            ),
            True,
        ),
        (
            (
                "nft add table inet fw",
                "nft add chain inet fw pre",
                "nft add rule inet fw pre fib daddr type local accept",
            ),
            False,
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else str(value),
)
def test_an_ipv6_reverse_path_check_is_warned_of_unless_it_is_loose(
    space: Namespace, commands: tuple[str, ...], strict: bool
) -> None:
    load(space, *commands)
    assert bool(facts(space).rpfilter6) is strict


def load_legacy(space: Namespace, *commands: str) -> None:
    try:
        load(space, *commands)
    except RuntimeError as error:
        pytest.skip(f"no iptables of the older kind here: {error}")


needs_legacy = pytest.mark.skipif(shutil.which("iptables-legacy") is None, reason="no iptables-legacy here")


@needs_legacy
@pytest.mark.parametrize("program", ["iptables-legacy", "ip6tables-legacy"])
def test_tables_of_the_older_iptables_are_read_too(space: Namespace, program: str) -> None:
    chain = f"{program} -t mangle -A FORWARD"
    load_legacy(
        space,
        f"{program} -t mangle -N cali-from-wl-dispatch",
        f"{chain} -p tcp --dport 80 -m mark --mark 0x10000/0x30000 -j ACCEPT",
        f"{chain} -m conntrack --ctstate NEW -j MARK --set-xmark 0x40000/0xc0000",
        f"{chain} -j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80",
        f"{chain} -m mark --mark 0x4000/0x4000 -j ACCEPT",
    )
    where = f"{program} table mangle"
    assert facts(space).marks == (
        MarkUse(where, Act.TEST, 0x30000, 0x10000),
        MarkUse(where, Act.CHANGE, 0xC0000),
        MarkUse(where, Act.CHANGE, 0x80),
        MarkUse(where, Act.TEST, 0x4000, 0x4000),
    )
    assert reason(space) is Reason.MARKS_IN_USE


@needs_legacy
@pytest.mark.parametrize("program", ["iptables-legacy", "ip6tables-legacy"])
def test_the_older_iptables_is_warned_of_when_it_drops_what_it_is_not_told_to_forward(
    space: Namespace, program: str
) -> None:
    load_legacy(space, f"{program} -A FORWARD -j ACCEPT")
    assert facts(space).drops == ()
    load(space, f"{program} -P FORWARD DROP")
    assert facts(space).drops == (f"{program} chain FORWARD",)


def test_what_is_found_says_where(space: Namespace) -> None:
    load(space, "iptables-nft -A FORWARD -m mark --mark 0x10000/0x30000 -j ACCEPT")
    assert facts(space).marks == (MarkUse("table ip filter chain FORWARD", Act.TEST, 0x30000, 0x10000),)
    assert reason(space) is Reason.MARKS_IN_USE
