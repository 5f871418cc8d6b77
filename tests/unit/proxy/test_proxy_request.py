"""The parser of request heads takes a strict subset, and the same one however the bytes are cut."""

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice_proxy.core.refusal import RefusedError
from sluice_proxy.core.request import CHUNKED, FIELDS_MAX, HEAD_MAX, Kind, Request, parse_request

CONNECT = b"CONNECT partner.test:443 HTTP/1.1\r\nHost: partner.test:443\r\n\r\n"


def outcome(data: bytes) -> Request | str | None:
    """The request, the reason of its refusal, or None for more bytes wanted."""
    try:
        parsed = parse_request(data)
    except RefusedError as error:
        return error.refusal.reason
    return None if parsed is None else parsed[0]


def head(line: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join([line, *fields, b"", b""])


def test_connect_names_host_and_port_and_leaves_what_follows() -> None:
    parsed = parse_request(CONNECT + b"early")
    assert parsed is not None
    request, size = parsed
    assert (request.kind, request.host, request.port, request.body) == (Kind.CONNECT, "partner.test", 443, 0)
    assert size == len(CONNECT)


@pytest.mark.parametrize(
    ("target", "host", "port", "origin"),
    [
        (b"http://partner.test", "partner.test", 80, b"/"),
        (b"http://partner.test/", "partner.test", 80, b"/"),
        (b"HTTP://Partner.Test.:8080/a?b=c", "partner.test", 8080, b"/a?b=c"),
        (b"http://partner.test?q", "partner.test", 80, b"/?q"),
        (b"http://192.0.2.1/x", "192.0.2.1", 80, b"/x"),
        (b"http://[2001:db8::1]:81/x", "2001:db8::1", 81, b"/x"),
    ],
)
def test_an_absolute_target_becomes_its_origin_form(target: bytes, host: str, port: int, origin: bytes) -> None:
    request = outcome(head(b"GET " + target + b" HTTP/1.1", b"Host: other"))
    assert isinstance(request, Request)
    assert (request.kind, str(request.host), request.port, request.target) == (Kind.FORWARD, host, port, origin)


def test_options_without_a_path_asks_the_server_as_a_whole() -> None:
    request = outcome(head(b"OPTIONS http://partner.test HTTP/1.1", b"Host: x"))
    assert isinstance(request, Request)
    assert request.target == b"*"


@pytest.mark.parametrize(
    ("fields", "body"),
    [((), 0), ((b"Content-Length: 42",), 42), ((b"Transfer-Encoding: Chunked",), CHUNKED), ((b"content-length:0",), 0)],
)
def test_the_framing_of_the_body_is_what_one_field_says(fields: tuple[bytes, ...], body: int) -> None:
    request = outcome(head(b"POST http://a.test/ HTTP/1.1", b"Host: a", *fields))
    assert isinstance(request, Request)
    assert request.body == body


GET = b"GET http://a.test/ HTTP/1.1"
HOST = b"Host: a.test"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (head(GET, HOST, b"Content-Length: 1", b"Transfer-Encoding: chunked"), "framing"),
        (head(GET, HOST, b"Content-Length: 1", b"Content-Length: 1"), "framing"),
        (head(GET, HOST, b"Content-Length: +1"), "framing"),
        (head(GET, HOST, b"Content-Length: 0x1"), "framing"),
        (head(GET, HOST, b"Content-Length: 1, 1"), "framing"),
        (head(GET, HOST, b"Content-Length: -1"), "framing"),
        (head(GET, HOST, b"Content-Length:"), "framing"),
        (head(GET, HOST, b"Content-Length: " + b"9" * 19), "framing"),
        (head(GET, HOST, b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), "framing"),
        (head(GET, HOST, b"Transfer-Encoding: gzip, chunked"), "coding"),
        (head(GET, HOST, b"Transfer-Encoding: xchunked"), "coding"),
        (head(b"CONNECT a.test:1 HTTP/1.0", b"Transfer-Encoding: chunked"), "framing"),
        (head(GET, HOST, b"Transfer-Encoding : chunked"), "bad-field"),
        (head(GET, HOST, b"A: b", b" folded"), "bad-field"),
        (head(GET, HOST, b" A: b"), "bad-field"),
        (head(GET, HOST, b": b"), "bad-field"),
        (head(GET, HOST, b"A\xc3: b"), "bad-field"),
        (head(GET, HOST, b"(A): b"), "bad-field"),
        (head(GET, HOST, b"no colon"), "bad-field"),
        (head(GET, HOST, b"A: b\x00c"), "bad-line-end"),
        (head(GET, HOST, b"A: b\nX: c"), "bad-line-end"),
        (head(GET, HOST, b"A: b\rX: c"), "bad-line-end"),
        (head(GET, HOST, b"A: b\x0bc"), "bad-line-end"),
        (head(GET, HOST, b"Host: b"), "bad-host-field"),
        (head(GET, b"A: b"), "bad-host-field"),
        (head(GET, HOST, *[b"A: b"] * FIELDS_MAX), "too-many-fields"),
        (head(GET, HOST, b"A: " + b"b" * HEAD_MAX), "head-too-large"),
        (b"\r\n" + CONNECT, "bad-request-line"),
        (head(b"GET  http://a.test/ HTTP/1.1", HOST), "bad-request-line"),
        (head(b"GET http://a.test/\tHTTP/1.1", HOST), "bad-request-line"),
        (head(b"GET http://a.test/ HTTP/1.1 ", HOST), "bad-request-line"),
        (head(b"G@T http://a.test/ HTTP/1.1", HOST), "bad-request-line"),
        (head(b"GET http://a.test/\xff HTTP/1.1", HOST), "bad-request-line"),
        (head(b"GET http://a.test/ http/1.1", HOST), "bad-request-line"),
        (head(b"M" * 33 + b" http://a.test/ HTTP/1.1", HOST), "bad-request-line"),
        (head(b"PRI * HTTP/2.0", HOST), "version"),
        (head(b"GET http://a.test/ HTTP/1.2", HOST), "version"),
        (head(b"GET http://a.test/ HTTP/1.0"), "version"),
        (head(b"TRACE http://a.test/ HTTP/1.1", HOST), "method"),
        (head(b"GET https://a.test/ HTTP/1.1", HOST), "bad-target"),
        (head(b"GET ftp://a.test/ HTTP/1.1", HOST), "bad-target"),
        (head(b"GET http:///x HTTP/1.1", HOST), "bad-target"),
        (head(b"GET http://a.test/#f HTTP/1.1", HOST), "bad-target"),
        (head(b"GET * HTTP/1.1", HOST), "bad-target"),
        (head(b"GET a.test:80 HTTP/1.1", HOST), "bad-target"),
        (head(b"GET http://user:secret@a.test/ HTTP/1.1", HOST), "bad-port"),
        (head(b"GET http://user@a.test/ HTTP/1.1", HOST), "bad-host"),
        (head(b"CONNECT http://a.test/ HTTP/1.1", HOST), "bad-port"),
        (head(b"CONNECT a.test HTTP/1.1", HOST), "bad-port"),
        (head(b"CONNECT /x HTTP/1.1", HOST), "bad-host"),
        (head(b"CONNECT a.test:443 HTTP/1.1", HOST, b"Content-Length: 1"), "connect-with-body"),
        (head(b"CONNECT a.test:443 HTTP/1.1", HOST, b"Transfer-Encoding: chunked"), "connect-with-body"),
    ],
)
def test_what_is_ambiguous_or_malformed_is_refused(data: bytes, reason: str) -> None:
    assert outcome(data) == reason


@pytest.mark.parametrize(
    "data", [b"", b"C", b"CONNECT a:1 HTTP/1.1\r", b"CONNECT a:1 HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nA: b\r\n\r"]
)
def test_a_head_without_its_end_wants_more(data: bytes) -> None:
    assert outcome(data) is None


PIECES = st.lists(
    st.sampled_from(
        [CONNECT, GET, HOST, b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" ", b":", b"A: b", b"Content-Length: 5", b"\x00",
         b"x",
         b"Transfer-Encoding: chunked", b"y" * 9000, b"GET /healthz HTTP/1.1"]
    ),
    max_size=9,
).map(b"".join)  # fmt: skip


@settings(deadline=None)
@given(PIECES, st.lists(st.integers(0, 20_000), max_size=6))
def test_the_outcome_does_not_depend_on_how_the_bytes_are_cut(data: bytes, cuts: list[int]) -> None:
    expected = outcome(data)
    for end in sorted({min(cut, len(data)) for cut in cuts} | {len(data)}):
        got = outcome(data[:end])
        if got is not None:
            assert got == expected
            return
    assert expected is None


TOKEN = st.text("abcXYZ019-_.", min_size=1, max_size=8)
VALUE = st.text(st.characters(codec="latin-1"), max_size=12)


@settings(deadline=None)
@given(TOKEN, st.lists(st.tuples(TOKEN, VALUE), max_size=5), st.sampled_from(["\r\n", "\n", "\r\n ", "\r"]))
def test_what_is_accepted_means_the_same_to_another_parser(
    method: str, fields: list[tuple[str, str]], ending: str
) -> None:
    lines = [f"{method} http://a.test/x HTTP/1.1", "Host: a.test", *(f"{name}: {value}" for name, value in fields)]
    data = ("\r\n".join(lines[:-1]) + ending + lines[-1] + "\r\n\r\n").encode("latin-1")
    request = outcome(data)
    if not isinstance(request, Request):
        return
    other = h11.Connection(h11.SERVER)
    other.receive_data(data)
    event = other.next_event()
    assert isinstance(event, h11.Request)
    assert event.method == request.method
    assert [(name.lower(), value) for name, value in request.fields] == list(event.headers)
