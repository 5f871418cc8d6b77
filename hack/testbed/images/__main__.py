"""`python -m testbed.images build|clean`: the images without the rest of the testbed."""

import argparse
import sys

from testbed.errors import ask_debug, ended
from testbed.images.build import build, clean
from testbed.images.engines import ENGINES
from testbed.images.recipe import TARGETS


def main() -> int:
    """Run one command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m testbed.images", description=__doc__)
    parser.add_argument("--debug", action="store_true", help="show where an error happened")
    commands = parser.add_subparsers(dest="command", required=True)
    building = commands.add_parser("build", help="build the images that changed")
    building.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)} (default: all)")
    building.add_argument("--engine", choices=ENGINES, help="default: the one that works")
    commands.add_parser("clean", help="remove archives, bases, wheels and layers")
    options = parser.parse_args()
    if options.debug:
        ask_debug()
    if options.command == "clean":
        clean()
        return 0
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    build(options.engine, options.targets or tuple(TARGETS))
    return 0


if __name__ == "__main__":
    sys.exit(ended(main))
