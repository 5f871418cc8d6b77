"""What an uninstall is compared by: everything on a node but what kube-proxy rewrites as it likes."""

from tests.cluster.system.world import without_kube_proxy

NFTABLES = """table ip kube-proxy {
\tchain services {
\t\tip daddr . meta l4proto . th dport vmap @service-ips
\t}
}
table inet cni-masquerade {
\tchain postrouting {
\t\tip saddr 10.244.0.0/16 masquerade
\t}
}
table ip6 kube-proxy {
\tchain services {
\t}
}
"""
IPTABLES = """table ip nat {
\tchain KUBE-SERVICES {
\t\tip daddr 10.96.0.1 jump KUBE-SVC-NPX46M4PTMTKRN6Y
\t}

\tchain PREROUTING {
\t\ttype nat hook prerouting priority dstnat; policy accept;
\t\t jump KUBE-SERVICES
\t\tmeta mark 0x7 accept
\t}

\tchain KUBE-SEP-AAAA {
\t}
}
"""


def test_in_nftables_mode_only_the_tables_of_others_are_compared() -> None:
    assert without_kube_proxy(NFTABLES).splitlines()[0] == "table inet cni-masquerade {"
    assert "kube-proxy" not in without_kube_proxy(NFTABLES)
    assert "masquerade" in without_kube_proxy(NFTABLES)


def test_in_iptables_mode_a_rule_of_ours_between_kube_proxys_would_be_seen() -> None:
    left = without_kube_proxy(IPTABLES)
    assert "KUBE-" not in left
    assert "meta mark 0x7 accept" in left
    assert "type nat hook prerouting" in left
