"""The command `sluice-agent`: reads the command line and the environment, and runs the agent.

Must not decide anything about traffic.
"""

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Final

from sluice_api.names import AGENT_SOCKET
from sluice_node.agent import kube_config, logs
from sluice_node.agent.agent import Agent, Settings
from sluice_node.agent.announcing import announce
from sluice_node.agent.kube_client import KubeClient
from sluice_node.agent.links import read_links
from sluice_node.core.desired import Network
from sluice_node.core.preflight import Facts, judge, table
from sluice_node.kernel import neighbours
from sluice_node.kernel.apply import Kernel
from sluice_node.kernel.errors import KernelError
from sluice_node.kernel.listening import LinkSocket
from sluice_node.kernel.preflight import read_facts
from sluice_node.kernel.probes import Probes

log = logging.getLogger(__name__)

_EPILOG: Final = """\
environment:
  NODE_NAME         name of the Node this agent runs on (required by `run`)
  SLUICE_NAMESPACE  namespace of Sluice, where gateway pods are looked for (default: sluice-system)

Stopping the agent, or its crash, changes nothing for traffic: what it programmed is the kernel's.
To take Sluice out of a running node, annotate its EgressNode: kubectl annotate egressnode NODE sluice.dev/remove=true
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = argparse.ArgumentParser(
        prog="sluice-agent",
        description="Sluice's agent on a node: leads selected pods' traffic out through gateways.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="follow the API server and keep this node's kernel as it asks",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("--kubeconfig", type=Path, help="kubeconfig in JSON (default: the service account of the pod)")
    run.add_argument(
        "--exclude",
        type=_network,
        action="append",
        default=[],
        metavar="CIDR",
        help="a further range inside the cluster, never redirected; repeatable. Pods, services and nodes are known",
    )
    run.add_argument(
        "--socket", type=Path, default=Path(AGENT_SOCKET), help="socket for proxies (default: %(default)s)"
    )
    run.add_argument(
        "--metrics-address",
        type=_host_port,
        default=(None, 9811),
        metavar="[HOST]:PORT",
        help="where /healthz, /readyz and /metrics are served (default: :9811)",
    )
    cleanup = commands.add_parser(
        "cleanup", help="take everything of Sluice out of this node's kernel, without the API server"
    )
    preflight = commands.add_parser(
        "preflight", help="say what this node has and lacks, and what others do on it that is in Sluice's way"
    )
    for command in (run, cleanup, preflight):
        command.add_argument(
            "--sysctl-root",
            type=Path,
            default=Path("/proc/sys/net"),
            metavar="PATH",
            help="the node's /proc/sys/net, where it can be written (default: %(default)s)",
        )
        command.add_argument("--log-format", choices=("text", "json"), default="text", help="(default: %(default)s)")
        command.add_argument(
            "--log-level", choices=("debug", "info", "warning"), default="info", help="(default: %(default)s)"
        )
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done or stopped, 1 failed (the log says why), 2 wrong usage."""
    command_line = parser()
    arguments = command_line.parse_args(argv)
    logs.set_up(style=arguments.log_format, level=arguments.log_level)
    try:
        if arguments.command == "cleanup":
            Kernel(arguments.sysctl_root).remove()
            log.info("took everything of Sluice out of this node")
            return 0
        if arguments.command == "preflight":
            facts = _look(arguments.sysctl_root)
            print(table(facts))
            return 1 if judge(facts).obstacle is not None else 0
        node = os.environ.get("NODE_NAME")
        if not node:
            command_line.error("NODE_NAME is not set: it names the Node this agent runs on")
        return asyncio.run(_run(arguments, node))
    except (KernelError, kube_config.ConfigError, OSError) as error:
        log.error("%s", error)
        return 1


async def _run(arguments: argparse.Namespace, node: str) -> int:
    path = arguments.kubeconfig
    config = kube_config.from_kubeconfig(path) if path is not None else kube_config.in_cluster()
    host, port = arguments.metrics_address
    settings = Settings(
        node=node,
        namespace=os.environ.get("SLUICE_NAMESPACE", "sluice-system"),
        never_redirected=frozenset(arguments.exclude),
        socket=arguments.socket,
        metrics_host=host,
        metrics_port=port,
    )
    client = KubeClient(config)
    agent = Agent(
        settings,
        client=client,
        kernel=Kernel(arguments.sysctl_root),
        open_probes=Probes,
        links=read_links,
        announce=announce,
        neighbours=neighbours.read,
        open_link=LinkSocket,
        look=partial(_look, arguments.sysctl_root),
    )
    # What was made by importing lives as long as the process: collections need not look at it again.
    gc.freeze()
    try:
        return await _until_stopped(agent)
    finally:
        client.close()


async def _until_stopped(agent: Agent) -> int:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    running = asyncio.ensure_future(agent.run())
    stopping = asyncio.ensure_future(stopped.wait())
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        error = running.exception()
        log.error("a part of the agent cannot go on: %s", _reasons(error), exc_info=error)
        return 1
    log.info("stopped; what the kernel holds stays")
    running.cancel()
    await asyncio.wait({running}, timeout=2.0)
    return 0


def _reasons(error: BaseException | None) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_reasons(each) for each in error.exceptions)
    return f"{type(error).__name__}: {error}"


def _look(sysctl_root: Path) -> Facts:
    return read_facts(sysctl_root, read_links().defaults.values())


def _network(text: str) -> Network:
    """A network; bits of a host are left out, as iproute2 does: 10.1.2.3/8 is 10.0.0.0/8."""
    return ip_network(text, strict=False)


def _host_port(text: str) -> tuple[str | None, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not [HOST]:PORT")
    return host.strip("[]") or None, int(port)


if __name__ == "__main__":
    sys.exit(main())
