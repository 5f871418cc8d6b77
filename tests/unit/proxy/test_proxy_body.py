"""A body ends where its framing says, whatever the pieces it comes in."""

from itertools import pairwise

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice_proxy.core.body import TRAILER_MAX, ChunkedBody, LengthBody, body_of
from sluice_proxy.core.refusal import RefusedError
from sluice_proxy.core.request import CHUNKED


def feed(body: ChunkedBody | LengthBody, pieces: list[bytes]) -> bytes | None:
    """What is sent on, or None when the framing is refused."""
    try:
        return b"".join([body.feed(piece) for piece in pieces])
    except RefusedError:
        return None


def cut(data: bytes, at: list[int]) -> list[bytes]:
    points = [0, *sorted(min(point, len(data)) for point in at), len(data)]
    return [data[start:end] for start, end in pairwise(points)]


def decode(data: bytes) -> bytes:
    """The content of a chunked message according to another parser."""
    other = h11.Connection(h11.SERVER)
    other.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    content = b""
    while not isinstance(event := other.next_event(), h11.EndOfMessage):
        assert event is not h11.NEED_DATA
        if isinstance(event, h11.Data):
            content += event.data
    return content


@settings(deadline=None)
@given(st.binary(max_size=50), st.integers(0, 40), st.lists(st.integers(0, 50), max_size=4))
def test_a_length_body_takes_its_bytes_and_none_of_the_next_request(data: bytes, length: int, at: list[int]) -> None:
    body = body_of(length)
    assert feed(body, cut(data, at)) == data[:length]
    assert body.done == (len(data) >= length)


CHUNKS = st.lists(st.binary(min_size=1, max_size=40), max_size=5)
CUTS = st.lists(st.integers(0, 300), max_size=8)


@settings(deadline=None)
@given(CHUNKS, CUTS, st.booleans(), st.binary(max_size=10))
def test_chunks_come_out_anew_with_their_content_and_nothing_after(
    chunks: list[bytes], at: list[int], trailer: bool, after: bytes
) -> None:
    data = b"".join(b"%X\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    data += b"000\r\n" + (b"T: secret\r\n" if trailer else b"") + b"\r\n"
    body = body_of(CHUNKED)
    out = feed(body, cut(data + after, at))
    assert out is not None
    assert body.done
    assert decode(out) == b"".join(chunks)
    assert b"secret" not in out


@pytest.mark.parametrize(
    "data",
    [
        b"+1\r\na\r\n", b"0x1\r\na\r\n", b"-1\r\na\r\n", b"1 \r\na\r\n", b" 1\r\na\r\n", b"1;ext=1\r\na\r\n", b"\r\n",
        b"g\r\n",
        b"1\na\r\n", b"1\r\na\n", b"1\r\nab\r\n", b"1\r\na\r\r\n",
        b"1\r\na0\r\n\r\n", b"1\r\r\na", b"12345678901234567\r\n",
        b"0\r\nbad trailer\r\n\r\n", b"0\r\n T: x\r\n\r\n", b"0\r\nT: x\n\r\n", b"0\n\r\n",
        b"0\r\n\n", b"1_0\r\n",
        "１\r\n".encode(),
        b"0\r\nT: " + b"x" * TRAILER_MAX,
    ],
)  # fmt: skip
def test_a_broken_framing_is_refused_however_it_is_cut(data: bytes) -> None:
    assert feed(ChunkedBody(), [data]) is None
    assert feed(ChunkedBody(), [data[i : i + 1] for i in range(len(data))]) is None


ODD = st.lists(
    st.sampled_from([b"1", b"\r\n", b"a", b"0", b"\n", b"\r", b";", b"T: x", b"5\r\nhello\r\n", b"0\r\n\r\n"]),
    max_size=8,
).map(b"".join)


@settings(deadline=None)
@given(ODD, CUTS)
def test_the_outcome_does_not_depend_on_the_cuts(data: bytes, at: list[int]) -> None:
    whole, pieces = ChunkedBody(), ChunkedBody()
    assert (feed(whole, [data]), whole.done) == (feed(pieces, cut(data, at)), pieces.done)
