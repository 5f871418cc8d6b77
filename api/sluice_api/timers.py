"""Every duration that a promise of Sluice rests on, in one place; docs/timers.md is made from this module.

A duration that only one module cares about, and that no one outside could notice, stays in that module.

Invariants:
- A timer here is read by the code that keeps it: the table says what the programs do.
- Standard library only, no I/O: the agent, the operator and the proxy import it.
"""

from enum import StrEnum
from typing import Final, Self


class Clock(StrEnum):
    """By which clock a duration is measured, and so what a clock that is wrong can do to it."""

    OWN = "own"
    WALL = "wall"

    @property
    def meaning(self) -> str:
        """What skew does."""
        return _CLOCKS[self]


_CLOCKS = {
    Clock.OWN: "the monotonic clock of the one process that measures it: clocks that are set, or differ between "
    "nodes, change nothing",
    Clock.WALL: "a time that is written into an object and compared with a wall clock later, perhaps by another "
    "replica: it ends early or late by as much as their clocks differ, so run NTP. A time that lies in the future "
    "counts as now",
}


class SetBy(StrEnum):
    """Who may choose it."""

    NOBODY = "nobody: fixed"
    POOL = "administrators, for each pool"
    CHART = "administrators, by a value of the chart"


class Timer(float):
    """Seconds, and what people must know of them. `keeps` says which promise rests on it."""

    __slots__ = ("clock", "keeps", "set_by", "what")

    what: str
    keeps: str
    clock: Clock
    set_by: SetBy

    def __new__(
        cls, seconds: float, what: str, *, keeps: str, clock: Clock = Clock.OWN, set_by: SetBy = SetBy.NOBODY
    ) -> Self:
        """A timer of so many seconds."""
        timer = super().__new__(cls, seconds)
        timer.what, timer.keeps, timer.clock, timer.set_by = what, keeps, clock, set_by
        return timer


# Gateways

PROBE_INTERVAL: Final = Timer(
    0.1, "between two probes of a gateway, from each node that uses it", keeps="failover below a second"
)
PROBES_TO_DEATH: Final = 3
"""Probes in a row without an answer after which a gateway is dead; as many answers and it is alive again."""
GATEWAY_DEATH: Final = Timer(
    PROBE_INTERVAL * PROBES_TO_DEATH,
    f"{PROBES_TO_DEATH} probes in a row without an answer: the gateway is not used any more, and another gateway holds"
    f" its egress IPs; {PROBES_TO_DEATH} answers in a row and it is used again. Only probes that were sent count, so a"
    " node that stood still condemns nobody",
    keeps="failover below a second",
)
FIRST_VERDICTS: Final = Timer(
    0.7,
    "how long a restarted agent waits for its first echoes before it changes anything in the kernel",
    keeps="a restart of an agent takes no live gateway out of use",
)
HOLDER_REPEAT: Final = Timer(
    10.0,
    "after which a holder that is said wrongly in an EgressIP is said again",
    keeps="`status.holder` is right in the end",
)

# Agents

AGENT_COALESCE: Final = Timer(
    0.02,
    "that an agent lets a change wait for others (the death of a gateway waits for none)",
    keeps="new pods are redirected at once",
)
KERNEL_CHECK: Final = Timer(
    1.0,
    "between two looks of an agent at whether the kernel still holds what it was given, and between the three "
    "announcements of a held egress IP after gateways came or went",
    keeps="what another program takes away is put back",
)
PREFLIGHT: Final = Timer(
    60.0,
    "between two looks of an agent at what others do on its node: packet marks, dropping chains, reverse path checks",
    keeps="a program that uses Sluice's mark bits and comes later is noticed",
)
LINKS_READ: Final = Timer(
    30.0, "between two readings of a node's interfaces and routes", keeps="announcements follow the interfaces"
)
SIGHTING: Final = Timer(
    300.0,
    "that an address which a pod or a machine on a link was seen to use counts as in use after it was seen last",
    keeps="an address that comes and goes is given to nobody, and does not make a report each time",
)
LINKS_READ_TROUBLED: Final = Timer(
    2.0,
    "between two of these readings while something is wrong with a pool, a policy or an address",
    keeps="an interface that comes is used soon",
)
REPORT_TOGETHER: Final = Timer(
    0.2,
    "that an agent's report waits for further changes (a change of its gateway role, and that it has looked at a new "
    "pool, wait for none)",
    keeps="status is prompt",
)
REPORT_BETWEEN: Final = Timer(
    1.0, "between two reports of one agent, at least", keeps="agents do not overload the API server"
)
AGENT_RETRY_FIRST: Final = Timer(
    0.5,
    "before an agent tries again what the API server or the kernel refused; it doubles each time, drawn at random "
    "from the upper half",
    keeps="a fault of a moment heals in a moment",
)
AGENT_RETRY_KERNEL: Final = Timer(
    30.0, "most that an agent waits before it tries again what the kernel refused", keeps="it heals without help"
)
AGENT_RETRY_WRITE: Final = Timer(
    15.0,
    "most that an agent waits before it writes again to an API server that did not take it",
    keeps="it heals without help",
)
AGENT_RETRY_WATCH: Final = Timer(
    10.0,
    "most that an agent waits before it takes up a broken watch",
    keeps="after an outage of the API server nodes catch up",
)
WATCH_SILENCE: Final = Timer(
    90.0,
    "without an event or a bookmark (one comes each minute) after which an agent gives a watch up",
    keeps="a dead connection to the API server is noticed",
)
ASK_AGAIN: Final = Timer(
    3600.0,
    "between two times that a gateway asks its link whether somebody has the addresses that a pool gives next",
    keeps="an address that a machine on the link has is given to nobody",
)
ASK_CONFLICT_AGAIN: Final = Timer(
    300.0,
    "between two times for an address that somebody answered for; also how long a gateway repeats that somebody else "
    "speaks as an egress IP that it holds, after it heard it last",
    keeps="an address that became free is given again",
)
TRIAL: Final = Timer(
    5.0,
    "after the first use of an egress IP on a node at which the API server must still answer that node, if it did "
    "just before; if not, that use is taken back",
    keeps="no claim cuts a node off from the API server",
)
TRIAL_CHECK: Final = Timer(
    1.0, "between two looks for the API server meanwhile; also the longest that one waits", keeps="the same"
)
TRIAL_PATIENCE: Final = Timer(
    30.0,
    "without the API server after which what was taken back is used again: it was not the reason",
    keeps="an outage of the API server changes nothing",
)
RETRIAL: Final = Timer(
    60.0,
    "after which an egress IP that was taken back, whereupon the API server answered again, is tried once more; a "
    "second time is proof, and it is left alone until the claim is another one",
    keeps="a coincidence takes no egress IP out of use",
)

# Heartbeat

HEARTBEAT: Final = Timer(
    10.0,
    "between two renewals of an agent's Lease `sluice-agent-NODE`, each of which needs a loop and a kernel thread "
    "that turn",
    keeps="a silent agent is noticed",
)
HEARTBEAT_PROOF: Final = Timer(
    5.0,
    "that the agent's loop may spend in one pass, and its kernel thread on one call, before the heartbeat stops",
    keeps="an agent that hangs is silent, too",
)
SILENCE: Final = Timer(
    20.0,
    "without a renewal after which the operator counts an agent as silent. It counts only while it reads the Leases "
    "itself: an outage of the API server, or an operator that stood still, silences nobody",
    keeps="`Programmed` turns Unknown within 30 s after an agent died",
)
SILENCE_LOOK: Final = Timer(5.0, "between two readings of all agents' Leases by the operator", keeps="the same")

# Operator

LEASE_DURATION: Final = Timer(
    10.0,
    "without a renewal of Lease `sluice-operator` after which another replica takes over",
    keeps="a dead leader is replaced within 15 s",
)
LEASE_RETRY: Final = Timer(2.5, "between two attempts to take or renew it", keeps="the same")
LEASE_ATTEMPT: Final = Timer(
    3.0, "after which an attempt is given up: one lost packet must not cost a whole term", keeps="the same"
)
LEASE_MARGIN: Final = Timer(
    2.5,
    "before another replica may take over in which a leader that could not renew writes nothing more",
    keeps="there are never two leaders that write",
)
OPERATOR_COALESCE: Final = Timer(
    0.05, "that the operator lets a change wait for others before it plans", keeps="a policy has its address at once"
)
SURVEY: Final = Timer(
    3.0,
    "that a new pool, or one whose addresses changed, waits at most for every node to say which of them are in use",
    keeps="an address that a node sees in use is given to nobody",
)
OPERATOR_RETRY_FIRST: Final = Timer(
    0.5, "before the operator tries again what could not be written; doubles each time", keeps="it heals without help"
)
OPERATOR_RETRY: Final = Timer(30.0, "most that the operator waits for that", keeps="it heals without help")
GATEWAY_PROGRESS: Final = Timer(
    120.0,
    "without a further gateway pod becoming ready after which a pool's Deployment says so, and the pool with it",
    keeps="a pool whose gateways cannot be scheduled, or whose image cannot be pulled, says why it has none",
)
OPERATOR_WATCH_SILENCE: Final = Timer(
    70.0,
    "without an event or a bookmark (one comes each minute) after which the operator gives a watch up",
    keeps="a dead connection to the API server is noticed",
)
RELIST: Final = Timer(
    60.0,
    "between two complete lists by the operator, and two looks at where the API server is",
    keeps="a deletion that a broken watch missed is noticed; an address of the API server is given to nobody",
)
QUARANTINE: Final = Timer(
    3600.0,
    "that an address which no policy uses any more is kept for a policy of the same namespace and name, unless "
    "`spec.quarantine` of its pool says otherwise",
    keeps="an address outlives a mistake, and no stranger gets it meanwhile",
    clock=Clock.WALL,
    set_by=SetBy.POOL,
)
VANISHED_NODE_REST: Final = Timer(
    3600.0,
    "that the ports of a node whose Node object is gone are kept from other nodes, and its addresses from other "
    "policies: its machine may still run. `--vanished-node-rest` in `operator.extraArgs` of the chart",
    keeps="no packet leaves with an address or port that is somebody else's by now",
    clock=Clock.WALL,
    set_by=SetBy.CHART,
)
REST_SKEW: Final = Timer(
    60.0,
    "by which the written beginning of a rest may lie in the future (another replica's clock) before it is written "
    "anew",
    keeps="a wrong clock makes a rest longer, never endless",
    clock=Clock.WALL,
)

# Gateways' proxies

GATEWAY_GRACE: Final = Timer(
    30.0,
    "that a gateway pod which is deleted may take to end: its proxy takes no new connections, and those that there "
    "are may end",
    keeps="a drain of a gateway node cuts no short connection",
)
PROXY_IDLE: Final = Timer(
    3600.0, "of silence after which the proxy ends a connection", keeps="dead peers occupy no place"
)
PROXY_HEAD: Final = Timer(
    10.0, "that a client of the proxy may take to say what it wants", keeps="clients that say nothing occupy no place"
)
PROXY_RESOLVE: Final = Timer(
    10.0, "that looking up a name may take", keeps="a request is answered, also while the name servers are away"
)
PROXY_CONNECT: Final = Timer(
    10.0, "that connecting may take, over all addresses of a name", keeps="a request is answered"
)


def timers() -> dict[str, Timer]:
    """Every timer by its name, in the order above."""
    return {name: value for name, value in globals().items() if isinstance(value, Timer)}
