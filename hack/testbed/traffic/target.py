"""Where traffic goes: `ADDRESS:PORT`, `[ADDRESS]:PORT` or `NAME:PORT`; a ping needs no port.

Pure. Must not resolve names.
"""

import re
from dataclasses import dataclass

_TARGET = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\[\]:]+))(?::(?P<port>[0-9]{1,5}))?")


class TargetError(ValueError):
    """Text that is no target."""


@dataclass(frozen=True, slots=True)
class Target:
    """A host (address or name) and a port, 0 if none was given."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.port else host


def parse_target(text: str) -> Target:
    """Read a target. Raises TargetError."""
    match = _TARGET.fullmatch(text)
    port = int(match["port"] or 0) if match else 0
    if match is None or port > 65535:
        raise TargetError(f"{text!r} is no target: write ADDRESS:PORT, [ADDRESS]:PORT or NAME:PORT")
    return Target(match["v6"] or match["host"], port)
