"""The record keeps every distinct packet identity, with its first and last time."""

import ipaddress

from testbed.recorder.flows import Flows, Seen, select
from testbed.recorder.packets import Packet

POD = ipaddress.ip_address("10.1.2.3")
EGRESS = ipaddress.ip_address("198.51.100.7")
OUTSIDE = ipaddress.ip_address("203.0.113.10")


def recorded() -> list[Seen]:
    flows = Flows()
    flows.add(Packet("tcp", EGRESS, 1024, OUTSIDE, 80, "open"), 10)
    flows.add(Packet("tcp", EGRESS, 1024, OUTSIDE, 80), 20)
    flows.add(Packet("tcp", EGRESS, 1024, OUTSIDE, 80), 40)
    flows.add(Packet("udp", POD, 5000, OUTSIDE, 53), 30)
    return flows.seen()


def test_packets_of_one_identity_are_one_entry_with_first_and_last_time() -> None:
    assert recorded()[1] == Seen("tcp", EGRESS, 1024, OUTSIDE, 80, "other", 20, 40, 2)


def test_a_single_packet_from_another_source_is_an_entry_of_its_own() -> None:
    assert [entry.source for entry in recorded() if entry.packets == 1] == [EGRESS, POD]


def test_since_keeps_what_was_still_seen_at_that_time() -> None:
    assert [entry.last for entry in select(recorded(), since=30)] == [40, 30]


def test_selects_a_protocol() -> None:
    assert [entry.source for entry in select(recorded(), protocol="udp")] == [POD]


def test_clearing_forgets() -> None:
    flows = Flows()
    flows.add(Packet("udp", POD, 5000, OUTSIDE, 53), 30)
    flows.clear()
    assert flows.seen() == []


def test_survives_json() -> None:
    assert [Seen.from_json(entry.to_json()) for entry in recorded()] == recorded()
