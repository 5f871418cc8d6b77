"""`traffic hold|check|transfer`: see each command's --help. One JSON object a line on standard output."""

import argparse
import asyncio
import json
import sys
from pathlib import Path

from testbed.traffic.hold import Holding, Plan
from testbed.traffic.probes import check, transfer
from testbed.traffic.state import Kind
from testbed.traffic.target import parse_target


def main() -> int:
    """Run one command; returns 0 if nothing was lost or failed, else 1."""
    parser = argparse.ArgumentParser(prog="traffic", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    holding = commands.add_parser("hold", help="hold streams and report once a second; SIGUSR1 verifies them")
    holding.add_argument("--kind", type=Kind, choices=tuple(Kind), action="append", required=True)
    holding.add_argument("--count", type=int, default=1, help="streams of each kind to each target")
    holding.add_argument("--interval", type=int, default=100, metavar="MILLISECONDS")
    holding.add_argument(
        "--stall", type=float, default=10, metavar="SECONDS", help="to make progress at a verification"
    )
    holding.add_argument("--verify-after", type=float, metavar="SECONDS", help="verify then, and end")
    holding.add_argument("--report", type=Path, metavar="FILE", help="also append the reports to a file")
    checking = commands.add_parser("check", help="ask each target once what it sees us as")
    checking.add_argument("--kind", choices=("tcp", "udp", "ping"), default="tcp")
    moving = commands.add_parser("transfer", help="move bytes and compare their hash")
    moving.add_argument("--bytes", type=int, default=20_000_000)
    moving.add_argument("--upload", action="store_true", help="send (default: receive)")
    for command, timeout in ((checking, 3.0), (moving, 60.0)):
        command.add_argument("--timeout", type=float, default=timeout, metavar="SECONDS")
    for command in (holding, checking, moving):
        command.add_argument("--target", type=parse_target, action="append", required=True, metavar="HOST:PORT")
        command.add_argument("--id", default="traffic", help="a word that the other end records")
    run = {"hold": _hold, "check": _check, "transfer": _transfer}
    options = parser.parse_args()
    return 0 if asyncio.run(run[options.command](options)) else 1


async def _hold(options: argparse.Namespace) -> bool:
    def report(line: str) -> None:
        print(line, flush=True)
        if options.report:
            with options.report.open("a") as file:
                file.write(f"{line}\n")

    plan = Plan(
        targets=options.target,
        kinds=options.kind,
        count=options.count,
        interval=options.interval / 1000,
        stall=options.stall,
        verify_after=options.verify_after,
        name=options.id,
    )
    return await Holding(plan, report).run()


async def _check(options: argparse.Namespace) -> bool:
    answers = [await check(options.kind, target, timeout=options.timeout, name=options.id) for target in options.target]
    return _print(answers)


async def _transfer(options: argparse.Namespace) -> bool:
    answers = [
        await transfer(target, count=options.bytes, upload=options.upload, timeout=options.timeout, name=options.id)
        for target in options.target
    ]
    return _print(answers)


def _print(answers: list[dict[str, object]]) -> bool:
    for answer in answers:
        print(json.dumps(answer), flush=True)
    return all(answer["ok"] for answer in answers)


if __name__ == "__main__":
    sys.exit(main())
