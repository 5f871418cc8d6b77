"""Why a request is not served: one value that becomes both the client's answer and the reason in the access log.

Invariants: `detail` holds only fixed text and values that were validated (names of policies, normalised hosts,
addresses), never raw input, so an answer cannot reflect what a client sent.
"""

from dataclasses import dataclass
from enum import StrEnum


class ProxyError(StrEnum):
    """Error types of the Proxy-Status field (RFC 9209, section 2.3) that this proxy gives."""

    DNS_TIMEOUT = "dns_timeout"
    DNS_ERROR = "dns_error"
    DESTINATION_UNAVAILABLE = "destination_unavailable"
    DESTINATION_IP_PROHIBITED = "destination_ip_prohibited"
    DESTINATION_IP_UNROUTABLE = "destination_ip_unroutable"
    CONNECTION_REFUSED = "connection_refused"
    CONNECTION_TERMINATED = "connection_terminated"
    CONNECTION_TIMEOUT = "connection_timeout"
    CONNECTION_LIMIT_REACHED = "connection_limit_reached"
    HTTP_REQUEST_ERROR = "http_request_error"
    HTTP_REQUEST_DENIED = "http_request_denied"
    HTTP_RESPONSE_INCOMPLETE = "http_response_incomplete"
    HTTP_PROTOCOL_ERROR = "http_protocol_error"
    PROXY_INTERNAL_ERROR = "proxy_internal_error"
    PROXY_LOOP_DETECTED = "proxy_loop_detected"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is refused.

    status: HTTP status code; error: the Proxy-Status type; reason: a short stable word for logs and tests;
    detail: a sentence for the person at the client, with the remedy where there is one.
    """

    status: int
    error: ProxyError
    reason: str
    detail: str


class RefusedError(Exception):
    """Raised by the parsers; carries the Refusal."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


def malformed(reason: str, detail: str, status: int = 400) -> RefusedError:
    """A request that this proxy does not understand, or does not want to."""
    return RefusedError(Refusal(status, ProxyError.HTTP_REQUEST_ERROR, reason, detail))
