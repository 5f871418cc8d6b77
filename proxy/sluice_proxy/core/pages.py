"""The proxy's own pages, for the kubelet: /healthz (the worker serves) and /readyz (it knows its policies)."""

from .refusal import malformed
from .request import Request


def local_page(request: Request, *, ready: bool) -> tuple[int, str]:
    """The status and text of the page that an origin-form request asks for. Raises RefusedError (404, 405)."""
    if request.method not in (b"GET", b"HEAD"):
        raise malformed("method", "The proxy's own pages are read with GET.", 405)
    if request.target == b"/healthz":
        return 200, "ok"
    if request.target == b"/readyz":
        return (200, "ready") if ready else (503, "waiting for the node's agent")
    detail = (
        "There is /healthz and /readyz. A request to be forwarded has an absolute target: is this used as a server?"
    )
    raise malformed("no-such-page", detail, 404)
