"""One leader among the operator's replicas, by a Lease.

Invariants:
- Only the monotonic clock of this process decides: how long ago *we* renewed, how long ago *we* saw another holder's
  record change. Wall clocks of two machines are never compared.
- A leader counts its term from the moment *before* the renewal was sent, and stops believing in it `LEASE_MARGIN`
  seconds before another replica may take over. `is_leader` is asked before every write.
- No error of the API server leaves `run`: a lease that cannot be renewed simply runs out.

A dead leader is replaced within LEASE_DURATION + 2 x LEASE_RETRY seconds; one that stops in good order gives the lease
up at once.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from sluice_api.timers import LEASE_ATTEMPT, LEASE_DURATION, LEASE_MARGIN, LEASE_RETRY
from sluice_operator.shell.kube import LEASE, Api, ApiError, Document, NotFound

log = logging.getLogger(__name__)

LEASE_NAME: Final = "sluice-operator"


class Leader:
    """Holds the lease or waits for it. `clock` counts seconds and never goes back."""

    def __init__(self, api: Api, *, namespace: str, identity: str, clock: Callable[[], float]) -> None:
        self._api = api
        self._namespace = namespace
        self.identity = identity
        self._clock = clock
        self._held_until = float("-inf")
        self._seen: tuple[str, str, int] | None = None
        self._seen_at = 0.0
        self._told = False
        self.changed = asyncio.Event()
        """Set whenever leadership is gained or lost; whoever waits clears it."""

    def is_leader(self) -> bool:
        """Whether this process may write now."""
        return self._clock() < self._held_until

    async def run(self) -> None:
        """Compete for the lease, and keep it, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(LEASE_ATTEMPT):
                    await self.attempt()
            except (ApiError, TimeoutError, ValueError, KeyError, TypeError) as error:
                log.warning("cannot take or renew the lease: %s", str(error) or "no answer")
            self._tell()
            await asyncio.sleep(LEASE_RETRY)
            self._tell()

    def _tell(self) -> None:
        if self.is_leader() != self._told:
            self._told = self.is_leader()
            log.info("%s", "became the leader" if self._told else "lost the lease")
            self.changed.set()

    async def attempt(self) -> None:
        """One try to take or renew the lease. Raises ApiError."""
        sent = self._clock()
        try:
            lease = await self._api.get(LEASE, LEASE_NAME, namespace=self._namespace)
        except NotFound:
            await self._api.create(LEASE, self._document(transitions=0), namespace=self._namespace)
            self._held_until = sent + LEASE_DURATION - LEASE_MARGIN
            return
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        transitions = int(spec.get("leaseTransitions") or 0)
        if holder and holder != self.identity and not self._expired(spec, holder, transitions):
            self._held_until = float("-inf")
            return
        if holder != self.identity:
            transitions += 1
        document = self._document(transitions=transitions, lease=lease)
        await self._api.update(LEASE, document, namespace=self._namespace)
        self._held_until = sent + LEASE_DURATION - LEASE_MARGIN

    async def release(self) -> None:
        """Give the lease up, so that the next leader need not wait for it to run out."""
        if not self.is_leader():
            return
        self._held_until = float("-inf")
        try:
            lease = await self._api.get(LEASE, LEASE_NAME, namespace=self._namespace)
            if (lease.get("spec") or {}).get("holderIdentity") == self.identity:
                lease["spec"]["holderIdentity"] = ""
                await self._api.update(LEASE, lease, namespace=self._namespace)
        except ApiError as error:
            log.warning("cannot give up the lease: %s", error)

    def _expired(self, spec: Document, holder: str, transitions: int) -> bool:
        record = (holder, str(spec.get("renewTime")), transitions)
        if record != self._seen:
            self._seen, self._seen_at = record, self._clock()
            return False
        return self._clock() - self._seen_at >= float(spec.get("leaseDurationSeconds") or LEASE_DURATION)

    def _document(self, *, transitions: int, lease: Document | None = None) -> Document:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        metadata: dict[str, Any] = {"name": LEASE_NAME, "namespace": self._namespace}
        acquired = now
        if lease is not None:
            metadata = lease["metadata"]
            spec = lease.get("spec") or {}
            if spec.get("holderIdentity") == self.identity:
                acquired = spec.get("acquireTime") or now
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": metadata,
            "spec": {
                "holderIdentity": self.identity,
                "leaseDurationSeconds": int(LEASE_DURATION),
                "acquireTime": acquired,
                "renewTime": now,
                "leaseTransitions": transitions,
            },
        }
