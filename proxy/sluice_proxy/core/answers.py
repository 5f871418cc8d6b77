"""The answers that the proxy gives itself: problem documents (RFC 9457) with a Proxy-Status field (RFC 9209).

Invariants: the text of an answer is ASCII from a Refusal; every answer closes the connection.
"""

import json
from http import HTTPStatus
from typing import Final

from .refusal import Refusal

ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
"""The answer to a CONNECT that succeeded: no fields, since what follows is the tunnel (RFC 9110, section 9.3.6)."""


def refusal_answer(refusal: Refusal, *, head_only: bool = False) -> bytes:
    """The whole answer to a request that is refused; without its body when the request was HEAD."""
    status = HTTPStatus(refusal.status)
    body = json.dumps(
        {
            "title": status.phrase,
            "status": refusal.status,
            "detail": refusal.detail,
            "error": refusal.error,
            "reason": refusal.reason,
        }
    ).encode("ascii")
    quoted = refusal.detail.encode("ascii", "replace").decode("ascii").replace("\\", "\\\\").replace('"', '\\"')
    fields = f'Proxy-Status: sluice; error={refusal.error}; details="{quoted}"\r\n'
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        fields += "Allow: GET, HEAD\r\n"
    return _answer(status, "application/problem+json", fields, body, head_only)


def local_answer(status: int, text: str, *, head_only: bool = False) -> bytes:
    """An answer of the proxy's own pages (health), as plain text."""
    return _answer(HTTPStatus(status), "text/plain; charset=utf-8", "", f"{text}\n".encode(), head_only)


def _answer(status: HTTPStatus, kind: str, fields: str, body: bytes, head_only: bool) -> bytes:
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        f"{fields}Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + (b"" if head_only else body)
