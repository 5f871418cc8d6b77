"""A held stream counts as lost exactly when it ended or stopped making progress."""

from hypothesis import given
from hypothesis import strategies as st

from testbed.traffic.state import Kind, Phase, Stream, proven, summary


def opened(kind: Kind = Kind.IDLE, at: float = 10.0) -> Stream:
    return Stream(kind).opened(at, address="198.51.100.7")


def test_a_stream_that_answered_is_open_and_knows_its_address() -> None:
    assert opened() == Stream(Kind.IDLE, Phase.OPEN, progressed_at=10.0, address="198.51.100.7")


def test_the_longest_gap_is_remembered() -> None:
    stream = opened().progressed(10.1).progressed(13.1).progressed(13.2)
    assert (round(stream.gap, 6), stream.answers) == (3.0, 3)


def test_lost_is_final_and_keeps_its_first_reason() -> None:
    stream = opened().lost("reset").lost("closed").progressed(20.0).opened(21.0).verified(0.0)
    assert (stream.phase, stream.reason, stream.progressed_at) == (Phase.LOST, "reset", 10.0)


def test_a_verification_loses_what_made_no_progress_since_it_began() -> None:
    assert opened().verified(since=10.5).reason == "no progress"
    assert opened().progressed(10.6).verified(since=10.5).phase is Phase.OPEN


def test_a_verification_loses_what_never_opened() -> None:
    assert Stream(Kind.UDP).verified(since=10.5).reason == "never opened"


def test_a_verification_waits_for_every_open_stream_and_for_no_lost_one() -> None:
    assert not proven([opened(), opened().progressed(11.0)], since=10.5)
    assert not proven([Stream(Kind.UDP), opened().progressed(11.0)], since=10.5)
    assert proven([opened().lost("reset"), opened().progressed(11.0)], since=10.5)


def test_an_error_that_ends_nothing_is_counted() -> None:
    assert opened().failed_once().failed_once().failures == 2


def test_the_summary_counts_by_kind() -> None:
    streams = [opened(Kind.UDP).progressed(11.0), opened(Kind.UDP).lost("reset"), Stream(Kind.PING), opened(Kind.UDP)]
    assert summary(streams, now=12.5) == {
        "ping": {
            "opening": 1,
            "open": 0,
            "lost": 0,
            "errors": {},
            "answers": 0,
            "failures": 0,
            "silent": 0.0,
            "gap": 0.0,
            "addresses": {},
        },
        "udp": {
            "opening": 0,
            "open": 2,
            "lost": 1,
            "errors": {"reset": 1},
            "answers": 1,
            "failures": 0,
            "silent": 2.5,
            "gap": 1.0,
            "addresses": {"198.51.100.7": 3},
        },
    }


@given(st.lists(st.sampled_from(["open", "progress", "fail", "lose", "verify"]), max_size=20))
def test_no_order_of_events_revives_a_lost_stream_or_shortens_a_gap(events: list[str]) -> None:
    stream, time = Stream(Kind.CLIENT_PUSH), 0.0
    for event in events:
        time += 1.0
        before = stream
        stream = {
            "open": lambda s=stream, t=time: s.opened(t),
            "progress": lambda s=stream, t=time: s.progressed(t),
            "fail": stream.failed_once,
            "lose": lambda s=stream: s.lost("reset"),
            "verify": lambda s=stream, t=time: s.verified(t),
        }[event]()
        assert before.phase is not Phase.LOST or stream.phase is Phase.LOST
        assert stream.gap >= before.gap
