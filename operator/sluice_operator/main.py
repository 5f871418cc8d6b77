"""The operator's command line: `run` and `uninstall`."""

import asyncio
import contextlib
import os
import sys
import time
from importlib.metadata import version
from typing import Literal

import click

from sluice_api import durations
from sluice_api.timers import VANISHED_NODE_REST
from sluice_operator.core import gatewaypods
from sluice_operator.core.snapshot import Settings
from sluice_operator.shell import logs

METRICS_PORT = 9810


def _seconds(_context: click.Context, _parameter: click.Parameter, value: str) -> int:
    try:
        return durations.seconds(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("sluice"), prog_name="sluice-operator")
def main() -> None:
    """Sluice's operator: gives policies their egress IPs and pools their gateways."""


@main.command()
@click.option("--namespace", envvar="SLUICE_NAMESPACE", default="sluice-system", show_default=True,
              help="Namespace of Sluice itself: gateways, lease and id counter live there.")  # fmt: skip
@click.option("--gateway-image", envvar="SLUICE_GATEWAY_IMAGE", required=True,
              help="Image of the gateway pods.")  # fmt: skip
@click.option("--gateway-settings", envvar="SLUICE_GATEWAY_SETTINGS", default="{}", metavar="JSON",
              help="Pull secrets, labels and the like of all gateway pods; the chart writes them.")  # fmt: skip
@click.option("--vanished-node-rest", default=f"{VANISHED_NODE_REST:.0f}s", show_default=True, callback=_seconds,
              help="How long the ports of a node whose Node is gone are kept for it, like 90m or 1h.")  # fmt: skip
@click.option("--identity", envvar="POD_NAME", default=lambda: f"{os.uname().nodename}-{os.getpid()}",
              help="Unique name of this replica (its pod's name).")  # fmt: skip
@click.option("--metrics-host", default="", help="Address to serve /metrics, /healthz and /readyz on; empty: all.")
@click.option("--metrics-port", default=METRICS_PORT, show_default=True, help="Port of the same.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--log-level", type=click.Choice(["debug", "info", "warning"]), default="info", show_default=True)
def run(
    *,
    namespace: str,
    gateway_image: str,
    gateway_settings: str,
    vanished_node_rest: int,
    identity: str,
    metrics_host: str,
    metrics_port: int,
    log_format: Literal["text", "json"],
    log_level: str,
) -> None:
    """Reconcile until told to stop."""
    logs.configure(style=log_format, level=log_level)
    # Imported here: `--help` and `uninstall` need neither kopf nor the metrics.
    from sluice_operator.shell.operator import operate  # noqa: PLC0415

    try:
        pods = gatewaypods.read(gateway_settings)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--gateway-settings") from error
    settings = Settings(
        namespace=namespace,
        gateway_image=gateway_image,
        gateway_pods=pods,
        api_server_host=os.environ.get("KUBERNETES_SERVICE_HOST", ""),
        vanished_node_rest=vanished_node_rest,
    )
    with contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt):
        asyncio.run(operate(settings, identity=identity, metrics_host=metrics_host or None, metrics_port=metrics_port))


@main.command()
@click.option("--namespace", envvar="SLUICE_NAMESPACE", default="sluice-system", show_default=True,
              help="Namespace of Sluice itself.")  # fmt: skip
@click.option("--timeout", default=90.0, show_default=True, help="Seconds to wait for each step.")
@click.option("--job", envvar="SLUICE_JOB", default="",
              help="The Job that runs this: act only if a tool that is deleting Sluice made it.")  # fmt: skip
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def uninstall(*, namespace: str, timeout: float, job: str, log_format: Literal["text", "json"]) -> None:
    """Take Sluice out of every node; keep pools, policies and egress IPs.

    With --job, changes nothing and exits with 0 unless that Job is the hook of a deletion. Exits with 1, naming the
    nodes, when some have not cleaned up in time. May be run again at any time.
    """
    logs.configure(style=log_format, level="info")
    sys.exit(asyncio.run(_uninstall(namespace=namespace, timeout=timeout, job=job)))


async def _uninstall(*, namespace: str, timeout: float, job: str) -> int:  # noqa: ASYNC109 - per step, not of this call
    from sluice_operator.shell.confirm import meant  # noqa: PLC0415
    from sluice_operator.shell.kube import ApiError, KubeApi  # noqa: PLC0415
    from sluice_operator.shell.uninstall import Stragglers, Uninstaller  # noqa: PLC0415

    api = await KubeApi.connect()
    try:
        if job and not await meant(api, job=job, namespace=namespace, say=click.echo, clock=time.monotonic):
            return 0
        uninstaller = Uninstaller(api, namespace=namespace, timeout=timeout, say=click.echo, clock=time.monotonic)
        await uninstaller.run()
    except (Stragglers, ApiError) as error:
        click.echo(f"not uninstalled: {error}", err=True)
        return 1
    finally:
        await api.close()
    return 0
