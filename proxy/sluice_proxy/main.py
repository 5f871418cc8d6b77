"""The program `sluice-proxy`: reads its command line, raises the limit of open files, runs the supervisor."""

import argparse
import math
import os
import resource
import sys
from collections.abc import Sequence
from typing import Final

from sluice_api.names import AGENT_SOCKET
from sluice_api.timers import GATEWAY_GRACE, PROXY_IDLE

from .context import WorkerConfig
from .supervisor import Supervisor

_DESCRIPTORS_ASIDE: Final = 512
"""Per worker: pipes, listener, name server sockets, connections still being closed."""
_CONNECTIONS_MAX: Final = 100_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until told to stop; returns the exit status."""
    options = _parser().parse_args(arguments)
    descriptors = _raise_descriptor_limit()
    most = max(1, min(_CONNECTIONS_MAX, (descriptors - _DESCRIPTORS_ASIDE) // 2))
    config = WorkerConfig(
        pool=options.pool,
        proxying=not options.no_proxy,
        max_connections=min(options.max_connections or most, most),
        idle_seconds=options.idle_seconds,
        drain_seconds=options.drain_seconds,
        log_format=options.log_format,
    )
    try:
        supervisor = Supervisor(
            config, port=options.listen_port, workers=options.workers, agent_socket=options.agent_socket
        )
    except OSError as error:
        print(f"sluice-proxy: cannot listen on port {options.listen_port}: {error.strerror}", file=sys.stderr)
        return 1
    supervisor.run()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sluice-proxy",
        description="HTTP forward proxy of an egress pool. Who asks is known from the packet's policy id; what "
        "leaves has the policy's egress address.",
    )
    parser.add_argument("--pool", required=True, help="the EgressPool whose policies this proxy serves")
    parser.add_argument("--listen-port", required=True, type=_port, help="port on every address of the node")
    parser.add_argument("--no-proxy", action="store_true", help="answer only /healthz and /readyz")
    parser.add_argument(
        "--agent-socket", default=AGENT_SOCKET, help="unix socket of the node's agent (default: %(default)s)"
    )
    parser.add_argument(
        "--workers", type=_positive, default=len(os.sched_getaffinity(0)), help="processes (one per core: %(default)s)"
    )
    parser.add_argument(
        "--max-connections",
        type=_positive,
        default=None,
        help="per worker (default: what the limit of open files allows)",
    )
    parser.add_argument(
        "--drain-seconds",
        type=_seconds,
        default=float(GATEWAY_GRACE),
        help="after SIGTERM, how long open connections may go on (default: %(default)s)",
    )
    parser.add_argument(
        "--idle-seconds",
        type=_seconds,
        default=float(PROXY_IDLE),
        help="end connections silent for so long (default: %(default)s)",
    )
    parser.add_argument(
        "--log-format", choices=("json", "text"), default="json", help="of the access log (default: %(default)s)"
    )
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 < port < 1 << 16:
        raise argparse.ArgumentTypeError(f"{port} is no port: use 1 to 65535")
    return port


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 upward")
    return int(text)


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return number


def _raise_descriptor_limit() -> int:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


if __name__ == "__main__":
    sys.exit(main())
