"""The first process: owns the listeners, keeps one worker per core running, hands them the agent's snapshots, drains
them.

Invariants: a listener outlives its worker, so connections that wait in its queue when a worker dies are served by the
next one; no worker holds another one's channel, so each notices when the supervisor is gone; a worker that dies at
once is not started again at once.
"""

import os
import signal
import sys
import time
from _socket import AF_UNIX, SOCK_STREAM, socket, socketpair
from dataclasses import dataclass
from functools import partial
from typing import Final

from .access_log import AccessLog
from .agent import AgentClient
from .context import WorkerConfig
from .engine.loop import OUT, Alarm, Loop
from .worker import DRAIN_COMMAND, Worker, listen

RESTART_DELAY: Final = 1.0
_DRAIN_GRACE: Final = 2.0


@dataclass(slots=True)
class _Child:
    """A worker as its supervisor sees it. `outbox` is what it has not taken of the lines for it."""

    index: int
    pid: int
    channel: socket
    started: float
    outbox: bytes = b""
    waiting: bytes = b""


class Supervisor:
    """Runs until every worker has drained after SIGTERM or SIGINT."""

    def __init__(self, config: WorkerConfig, *, port: int, workers: int, agent_socket: str) -> None:
        """port: 0 lets the kernel choose one. Raises OSError when it is taken."""
        self._config = config
        self._loop = Loop()
        self._log = AccessLog(sys.stdout.fileno(), form=config.log_format, pool=config.pool)
        self._listeners = [listen(port)]
        self.port: int = self._listeners[0].getsockname()[1]
        self._listeners += [listen(self.port) for _ in range(1, workers)]
        self._children: dict[int, _Child] = {}
        self._line = b""
        self._draining = False
        self._agent = AgentClient(
            self._loop, path=agent_socket, pool=config.pool, snapshot=self._on_snapshot, event=self._event
        )
        self._wakeup, self._signals = socketpair(AF_UNIX, SOCK_STREAM, 0)

    def run(self) -> None:
        """Serve until drained."""
        self._wakeup.setblocking(False)
        self._signals.setblocking(False)
        signal.set_wakeup_fd(self._signals.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        self._loop.watch_level(self._wakeup.fileno(), self._on_signal)
        for index in range(len(self._listeners)):
            self._spawn(index)
        self._event("started", f"port {self.port}, {len(self._listeners)} workers")
        self._agent.connect()
        self._loop.run()

    def _spawn(self, index: int) -> None:
        ours, theirs = socketpair(AF_UNIX, SOCK_STREAM, 0)
        pid = os.fork()
        if pid == 0:
            self._become_worker(index, theirs, ours)
        theirs.close()
        ours.setblocking(False)
        child = self._children[pid] = _Child(index, pid, ours, time.monotonic())
        self._loop.watch(ours.fileno(), lambda events: self._deliver(child) if events & OUT else None)
        if self._line:
            self._tell(child, self._line)

    def _become_worker(self, index: int, channel: socket, ours: socket) -> None:
        """The child's side of the fork; does not return."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # The supervisor says when to end; a signal to the whole group must not cut connections.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            ours.close()
            self._wakeup.close()
            self._signals.close()
            self._agent.abandon()
            self._loop.close()
            for child in self._children.values():
                child.channel.close()
            for other, listener in enumerate(self._listeners):
                if other != index:
                    listener.close()
            Worker(self._config, self._listeners[index], channel).run()
            code = 0
        except Exception:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)

    def _on_signal(self, events: int) -> None:
        for number in self._wakeup.recv(64):
            if number == signal.SIGCHLD:
                self._reap()
            elif self._draining:
                self._kill()
            else:
                self._drain()

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            child = self._children.pop(pid)
            self._loop.retire(child.channel)
            if self._draining:
                if not self._children:
                    self._loop.stop()
                continue
            self._event("worker-died", f"worker {child.index}, {_describe(status)}")
            age = time.monotonic() - child.started
            index = child.index
            if age >= RESTART_DELAY:
                self._spawn(index)
            else:
                self._loop.arm(Alarm(partial(self._respawn, index)), RESTART_DELAY - age)

    def _respawn(self, index: int) -> None:
        if not self._draining:
            self._spawn(index)

    def _on_snapshot(self, line: bytes) -> None:
        self._line = line + b"\n"
        for child in self._children.values():
            self._tell(child, self._line)

    def _tell(self, child: _Child, line: bytes) -> None:
        """A line that a slow worker has not begun to take is replaced by a newer one: only the newest snapshot
        matters."""
        child.waiting = line
        self._deliver(child)

    def _deliver(self, child: _Child) -> None:
        try:
            while child.outbox or child.waiting:
                if not child.outbox:
                    child.outbox, child.waiting = child.waiting, b""
                child.outbox = child.outbox[child.channel.send(child.outbox) :]
        except BlockingIOError:
            return
        except OSError:
            # It died; its SIGCHLD is on its way.
            child.outbox = child.waiting = b""

    def _drain(self) -> None:
        self._draining = True
        self._event("draining", f"up to {self._config.drain_seconds:g} seconds")
        self._agent.close()
        for listener in self._listeners:
            listener.close()
        for child in self._children.values():
            self._tell(child, DRAIN_COMMAND + b"\n")
        if not self._children:
            self._loop.stop()
        self._loop.arm(Alarm(self._kill), self._config.drain_seconds + _DRAIN_GRACE)

    def _kill(self) -> None:
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)

    def _event(self, kind: str, detail: str) -> None:
        self._log.write(kind, time.time(), {"detail": detail})
        self._log.flush()


def _describe(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"killed by signal {os.WTERMSIG(status)}"
    return f"exit status {os.WEXITSTATUS(status)}"
