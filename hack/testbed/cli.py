"""The command line: `python -m testbed COMMAND`. Only translates words into calls of a Cluster."""

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from testbed import binaries
from testbed.cluster import DEFAULT_NAME, Cluster, ClusterError, ClusterOptions, open_cluster
from testbed.errors import ask_debug, ended
from testbed.prepare import prepare as everything

PASS_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": ["--help-testbed"]}
Command = Callable[..., Any]


def _name(command: Command) -> Command:
    return click.option(
        "--name", default=DEFAULT_NAME, envvar="SLUICE_TESTBED", show_default=True, help="Which cluster."
    )(command)


def _cluster(name: str) -> Cluster:
    return open_cluster(ClusterOptions(name=name))


def _kubeconfig(name: str) -> str:
    """Path of the kubeconfig of a cluster that is there; without one kubectl would turn to localhost."""
    path = _cluster(name).kubeconfig
    if not path.exists():
        raise ClusterError(f"there is no cluster {name!r}", "start it with `up`")
    return str(path)


def _become(group: binaries.Group, program: str, argv: tuple[str, ...], *, name: str) -> NoReturn:
    os.environ["KUBECONFIG"] = _kubeconfig(name)
    path = binaries.built(group, program)
    os.execv(path, [path, *argv])  # noqa: S606 - no shell is the point


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show where an error happened.")
def group(debug: bool) -> None:
    """A Kubernetes cluster for trying Sluice out: kind where a Docker engine works, namespaces elsewhere."""
    if debug:
        ask_debug()


@group.command()
@_name
@click.option("--nodes", default=3, show_default=True, help="Number of nodes.")
@click.option("--proxy-mode", type=click.Choice(["nftables", "iptables"]), default="nftables", show_default=True)
@click.option("--cni", type=click.Choice(["ptp", "bridge"]), default="ptp", show_default=True)
@click.option("--ip-family", type=click.Choice(["dual", "ipv4", "ipv6"]), default="dual", show_default=True)
def up(**options: Any) -> None:
    """Start a cluster (an old one of that name is removed)."""
    cluster = open_cluster(ClusterOptions(**options))
    cluster.up()
    click.echo(f"kubeconfig: {cluster.kubeconfig}")


@group.command()
@click.option("--tests", is_flag=True, help="Also what only the tests need.")
def prepare(tests: bool) -> None:
    """Get and build everything that the demo and the tests need, but no cluster."""
    everything(tests=tests)


@group.command()
@_name
def down(name: str) -> None:
    """Remove a cluster and every trace of it."""
    _cluster(name).down()


@group.command()
@_name
def status(name: str) -> None:
    """Every component of every host."""
    for host, components in _cluster(name).status().items():
        words = [f"{component}={state}" for component, state in components.items()]
        click.echo(f"{host:10} {' '.join(words)}".rstrip())


@group.command()
@_name
@click.argument("archives", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def load(name: str, archives: tuple[Path, ...]) -> None:
    """Import OCI archives on every node."""
    for archive in archives:
        _cluster(name).load_image(archive)


def _on_node(verb: str, explanation: str) -> None:
    @group.command(name=verb, help=explanation)
    @_name
    @click.argument("node")
    def command(name: str, node: str) -> None:
        getattr(_cluster(name), verb.replace("-", "_"))(node)


def _on_pair(verb: str, explanation: str) -> None:
    @group.command(name=verb, help=explanation)
    @_name
    @click.argument("a")
    @click.argument("b")
    def command(name: str, a: str, b: str) -> None:
        getattr(_cluster(name), verb)(a, b)


_on_node("power-off", "Switch a node off at the plug.")
_on_node("boot", "Switch it on again.")
_on_node("pause", "Freeze a node's processes; its kernel goes on.")
_on_node("resume", "Undo pause.")
_on_pair("partition", "Drop every frame between hosts A and B.")
_on_pair("heal", "Undo partition.")
_on_pair("stop", "Kill component A of host B.")
_on_pair("start", "Start component A of host B.")
_on_pair("restart", "Kill component A of host B and start it again.")


@group.command(context_settings=PASS_ON)
@_name
@click.argument("host")
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED)
def exec(name: str, host: str, argv: tuple[str, ...]) -> None:  # noqa: A001 - the word everybody looks for
    """Run a program inside a host."""
    words = argv[1:] if argv[0] == "--" else argv
    command = _cluster(name).host(host).command(words)
    os.execvp(command[0], command)  # noqa: S606 - no shell is the point


@group.command(context_settings=PASS_ON)
@_name
@click.argument("argv", nargs=-1, type=click.UNPROCESSED)
def kubectl(name: str, argv: tuple[str, ...]) -> None:
    """kubectl as administrator of the cluster."""
    _become(binaries.KUBERNETES, "kubectl", argv, name=name)


@group.command(context_settings=PASS_ON)
@_name
@click.argument("argv", nargs=-1, type=click.UNPROCESSED)
def helm(name: str, argv: tuple[str, ...]) -> None:
    """helm with the cluster."""
    _become(binaries.HELM, "helm", argv, name=name)


@group.command(name="shell-env")
@_name
def shell_env(name: str) -> None:
    """Lines for `eval`: KUBECONFIG, and PATH with kubectl and helm."""
    folders = ":".join(str(binaries.folder(g)) for g in (binaries.KUBERNETES, binaries.HELM))
    click.echo(f"export KUBECONFIG={shlex.quote(_kubeconfig(name))}")
    click.echo(f"export PATH={shlex.quote(folders)}:$PATH")


def main() -> None:
    """Run the command line; `up` cleans up behind itself when it is told to end."""
    sys.exit(ended(_command))


def _command() -> int:
    try:
        asked = group(prog_name="testbed", standalone_mode=False)
    except click.Abort as aborted:
        raise aborted.__cause__ or KeyboardInterrupt from None  # click's word for an interrupt
    except click.ClickException as misuse:
        misuse.show()
        return misuse.exit_code
    return asked if isinstance(asked, int) else 0
