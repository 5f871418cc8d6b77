"""What the sessions of one worker share."""

import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from .access_log import AccessLog, Value
from .core.message import pseudonym
from .core.policy import Snapshot
from .engine.flow import Plumbing
from .engine.loop import Alarm, Loop
from .engine.resolver import Resolver, read_config

_LOG_DELAY: Final = 0.2


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """What every worker is told at its start."""

    pool: str
    proxying: bool
    max_connections: int
    idle_seconds: float
    drain_seconds: float
    log_format: str


@runtime_checkable
class Cuttable(Protocol):
    """What can be ended at once: a session, and what it leaves its sockets to."""

    def cut(self, why: str) -> None:
        """End now."""


class Connection(Cuttable, Protocol):
    """A session as the worker sees it."""

    @property
    def open(self) -> bool:
        """Whether ending now would interrupt somebody."""


class Context:
    """One per worker. `snapshot` is None until the agent has spoken once, and replaced whole."""

    __slots__ = ("_flush", "_log", "config", "loop", "name", "plumbing", "resolver", "sessions", "snapshot")

    def __init__(self, config: WorkerConfig) -> None:
        self.config = config
        self.loop = Loop(self._on_fault)
        self.plumbing = Plumbing()
        self.resolver = Resolver(self.loop, read_config())
        self.name = pseudonym(config.pool)
        self.snapshot: Snapshot | None = None
        self.sessions: set[Connection] = set()
        self._log = AccessLog(sys.stdout.fileno(), form=config.log_format, pool=config.pool)
        self._flush = Alarm(self._log.flush)

    @property
    def crowded(self) -> bool:
        """Whether new requests are refused."""
        return len(self.sessions) > self.config.max_connections

    def log(self, event: str, record: Mapping[str, Value]) -> None:
        """One line of the access log, on its way within _LOG_DELAY seconds."""
        self._log.write(event, time.time(), record)
        if not self._flush.timer_tick:
            self.loop.arm(self._flush, _LOG_DELAY)

    def flush(self) -> None:
        """Write the lines that wait."""
        self._log.flush()

    def _on_fault(self, owner: object, error: Exception) -> None:
        """The connection that met a fault of this program ends; the line in the log is what there is to find it by."""
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{frames[-1].name}:{frames[-1].lineno}" if frames else "unknown"
        self.log("fault", {"detail": f"{type(error).__name__}: {error}", "place": place})
        if isinstance(owner, Cuttable):
            owner.cut("fault")
