"""Heads that are sent on carry what is for the other end and nothing that is for the proxy."""

import pytest

from sluice_proxy.core.answers import local_answer, refusal_answer
from sluice_proxy.core.message import (
    RESPONSE_HEAD_MAX,
    UNTIL_CLOSE,
    Response,
    check_loop,
    forward_head,
    parse_response,
    pseudonym,
)
from sluice_proxy.core.pages import local_page
from sluice_proxy.core.refusal import ProxyError, Refusal, RefusedError
from sluice_proxy.core.request import CHUNKED, Request, parse_request

NAME = pseudonym("partners")


def request(*lines: bytes) -> Request:
    parsed = parse_request(b"\r\n".join([*lines, b"", b""]))
    assert parsed is not None
    return parsed[0]


def response(data: bytes, method: bytes = b"GET") -> Response:
    parsed = parse_response(data, method, NAME)
    assert parsed is not None
    assert parsed[1] == len(data)
    return parsed[0]


def test_a_request_goes_on_in_origin_form_without_what_concerns_the_proxy() -> None:
    head = forward_head(
        request(
            b"POST http://a.test:8080/x?y HTTP/1.1", b"Host: evil.test", b"Proxy-Authorization: Basic c2VjcmV0",
            b"Proxy-Connection: keep-alive", b"Connection: keep-alive, X-Mine", b"X-Mine: 1", b"Keep-Alive: 5",
            b"TE: trailers",
            b"Trailer: T", b"Upgrade: websocket", b"Content-Length: 3", b"Accept:  */* ", b"Expect: 100-continue",
        ),
        NAME,
    )  # fmt: skip
    assert head == (
        b"POST /x?y HTTP/1.1\r\nHost: a.test:8080\r\nAccept: */*\r\nExpect: 100-continue\r\nContent-Length: 3\r\n"
        b"Via: 1.1 " + NAME + b"\r\nConnection: close\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ((), b""),
        ((b"Content-Length: 0",), b"Content-Length: 0"),
        ((b"Transfer-Encoding: chunked",), b"Transfer-Encoding: chunked"),
    ],
)
def test_framing_is_written_from_what_was_understood(fields: tuple[bytes, ...], expected: bytes) -> None:
    head = forward_head(request(b"PUT http://[2001:db8::1]/ HTTP/1.1", b"Host: x", b"Connection: Host", *fields), NAME)
    assert expected in head
    assert head.count(b"Content-Length") + head.count(b"Transfer-Encoding") == len(fields)
    assert b"Host: [2001:db8::1]\r\n" in head


@pytest.mark.parametrize("via", [b"1.1 " + NAME, b"1.0 fred, 1.1 " + NAME + b" (comment)", b"HTTP/1.1 " + NAME])
def test_a_request_that_came_through_this_pool_is_a_loop(via: bytes) -> None:
    with pytest.raises(RefusedError) as caught:
        check_loop(request(b"GET http://a.test/ HTTP/1.1", b"Host: a", b"Via: 1.1 other", b"Via: " + via), NAME)
    assert caught.value.refusal.error is ProxyError.PROXY_LOOP_DETECTED


def test_a_request_that_came_through_another_proxy_is_none() -> None:
    check_loop(request(b"GET http://a.test/ HTTP/1.1", b"Host: a", b"Via: 1.1 " + pseudonym("other")), NAME)


@pytest.mark.parametrize(
    ("status", "fields", "method", "body"),
    [
        (b"200 OK", b"Content-Length: 5\r\n", b"GET", 5),
        (b"200 OK", b"Content-Length: 5\r\nContent-Length: 5\r\n", b"GET", 5),
        (b"200 OK", b"Transfer-Encoding: chunked\r\n", b"GET", CHUNKED),
        (b"200 OK", b"", b"GET", UNTIL_CLOSE),
        (b"200", b"", b"GET", UNTIL_CLOSE),
        (b"200 OK", b"Content-Length: 5\r\n", b"HEAD", 0),
        (b"204 No Content", b"", b"GET", 0),
        (b"304 Not Modified", b"Content-Length: 5\r\n", b"GET", 0),
        (b"100 Continue", b"", b"POST", 0),
    ],
)
def test_how_a_responses_body_ends(status: bytes, fields: bytes, method: bytes, body: int) -> None:
    assert response(b"HTTP/1.1 " + status + b"\r\n" + fields + b"\r\n", method).body == body


def test_a_response_comes_back_without_what_concerns_the_connection_to_the_server() -> None:
    got = response(
        b"HTTP/1.0 200 Fine\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n"
        b"Proxy-Authenticate: Basic\r\nKeep-Alive: 5\r\n"
        b"Upgrade: h2c\r\nContent-Length: 2\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n"
    )  # fmt: skip
    assert got.head == (
        b"HTTP/1.1 200 Fine\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 2\r\nVia: 1.0 " + NAME + b"\r\n"
        b"Connection: close\r\n\r\n"
    )


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\nA: b\n\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 999 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * RESPONSE_HEAD_MAX,
    ],
)
def test_a_response_with_two_meanings_is_a_502(data: bytes) -> None:
    with pytest.raises(RefusedError) as caught:
        parse_response(data, b"GET", NAME)
    assert (caught.value.refusal.status, caught.value.refusal.reason) == (502, "bad-response")


def test_an_answer_is_a_problem_document_that_cannot_be_broken_out_of() -> None:
    refusal = Refusal(403, ProxyError.HTTP_REQUEST_DENIED, "reason", 'with "quotes" \\ and ünïcode')
    answer = refusal_answer(refusal)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert b'Proxy-Status: sluice; error=http_request_denied; details="with \\"quotes\\" \\\\ and ?n?code"' in head
    assert b"Content-Length: %d" % len(body) in head
    assert refusal_answer(refusal, head_only=True) == head + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("line", "ready", "status"),
    [
        (b"GET /healthz HTTP/1.1", False, 200),
        (b"HEAD /healthz HTTP/1.1", False, 200),
        (b"GET /readyz HTTP/1.1", True, 200),
        (b"GET /readyz HTTP/1.1", False, 503),
    ],
)
def test_the_proxys_own_pages(line: bytes, ready: bool, status: int) -> None:
    assert local_page(request(line, b"Host: x"), ready=ready)[0] == status


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET / HTTP/1.1", 404),
        (b"GET /healthz/../x HTTP/1.1", 404),
        (b"GET /healthz?x HTTP/1.1", 404),
        (b"POST /healthz HTTP/1.1", 405),
    ],
)
def test_the_proxy_has_no_other_pages(line: bytes, status: int) -> None:
    with pytest.raises(RefusedError) as caught:
        local_page(request(line, b"Host: x"), ready=True)
    assert caught.value.refusal.status == status
    assert (b"Allow: GET, HEAD" in refusal_answer(caught.value.refusal)) == (status == 405)


def test_a_page_is_plain_text() -> None:
    assert local_answer(200, "ok").endswith(b"\r\n\r\nok\n")
    assert local_answer(200, "ok", head_only=True).endswith(b"\r\n\r\n")
