"""What went wrong between the decision and the first byte, in the words of an answer."""

from typing import Final

from .core.refusal import ProxyError, Refusal
from .engine.dial import DialError
from .engine.resolver import ResolveError

DIAL: Final = {
    DialError.SOURCE: Refusal(
        503,
        ProxyError.PROXY_INTERNAL_ERROR,
        "source",
        "The gateway's node does not offer the policy's source address to its proxy. Is the node's agent running?",
    ),
    DialError.PORTS: Refusal(
        503,
        ProxyError.CONNECTION_LIMIT_REACHED,
        "ports",
        "Every port towards this destination is in use for this policy on this gateway.",
    ),
    DialError.REFUSED: Refusal(
        502, ProxyError.CONNECTION_REFUSED, "refused", "The destination refused the connection."
    ),
    DialError.UNREACHABLE: Refusal(
        502, ProxyError.DESTINATION_IP_UNROUTABLE, "unreachable", "The destination's address cannot be reached."
    ),
    DialError.TIMEOUT: Refusal(
        504, ProxyError.CONNECTION_TIMEOUT, "connect-timeout", "The destination did not answer in time."
    ),
    DialError.DESCRIPTORS: Refusal(
        503, ProxyError.CONNECTION_LIMIT_REACHED, "descriptors", "This gateway has too many connections open."
    ),
}
RESOLVE: Final = {
    ResolveError.NO_SUCH_NAME: Refusal(
        502, ProxyError.DNS_ERROR, "no-such-name", "The destination's name does not exist."
    ),
    ResolveError.FAILED: Refusal(
        502, ProxyError.DNS_ERROR, "dns-failed", "The name servers could not answer for the destination's name."
    ),
    ResolveError.TIMEOUT: Refusal(
        504,
        ProxyError.DNS_TIMEOUT,
        "dns-timeout",
        "The name servers did not answer for the destination's name in time.",
    ),
}
BUSY: Final = Refusal(
    503,
    ProxyError.CONNECTION_LIMIT_REACHED,
    "too-many-connections",
    "This gateway has too many connections open.",
)
HEAD_TIMEOUT: Final = Refusal(
    408, ProxyError.HTTP_REQUEST_ERROR, "head-timeout", "The request's head was not complete in time."
)


def proxy_off(pool: str) -> Refusal:
    """The pool's gateways forward packets but do not serve as a proxy."""
    detail = f"The proxy of pool {pool} is switched off (spec.gateways.proxy.enabled)."
    return Refusal(403, ProxyError.HTTP_REQUEST_DENIED, "proxy-off", detail)
