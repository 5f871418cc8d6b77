"""Whether a new claim cut this node off from the API server, and what to do about it.

A claim of an address that is really somebody's can take the API server away: it then is the last word that this node
hears, and nobody can take it back from outside. `refused` keeps what is known to be taken out of the kernel; this is
for what nobody knew, a virtual address in front of the API server, say.

```
             applied, API server in reach             in reach TRIAL later
   (unknown) ---------------------------> on trial ------------------------> (unknown)
                                              |
                                              | CHECKS in a row without an answer, TRIAL or more after the apply
                                              v
   (let be)  <--------------------------- taken back -----------------------> withheld
              not in reach again within               in reach again          (tried once more, alone, after RETRIAL;
              TRIAL_PATIENCE: was not it                                       a second time is proof)
```

Rules:
- Only what an apply *added* is on trial, and only while the API server answered just before it. So an outage that
  concerns everybody takes nothing back: nothing was added in the seconds before it began, or what was is put on again.
- An egress IP that another gateway held before is not new: a take-over is never on trial.
- A claim that was let be, or withheld, stays so until it is gone or another one (address, pool, policy).
Pure: no I/O, no clock; times are seconds of one monotonic clock.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Final

from sluice_api.timers import RETRIAL, TRIAL, TRIAL_CHECK, TRIAL_PATIENCE
from sluice_node.core.desired import Address, DesiredNode
from sluice_node.core.objects import EgressIP, Key

CHECKS: Final = 3
"""Checks in a row without an answer that condemn."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What makes a claim the same claim."""

    address: Address
    pool: str
    policy: Key

    @classmethod
    def of(cls, claim: EgressIP) -> "Claim":
        """The claim that an EgressIP is."""
        return cls(claim.address, claim.pool, claim.policy)


def additions(
    before: DesiredNode | None, after: DesiredNode, claims: Mapping[Address, EgressIP], *, held: frozenset[Address]
) -> frozenset[Claim]:
    """The claims that the step from `before` to `after` brings to this node, or makes it the first one to answer for.

    `held` are the egress IPs that the kernel knew before this process (`before` None).
    """
    if before is not None and (before.slices, before.policies) == (after.slices, after.policies):
        new = set()  # nearly always: there may be slices by the hundred thousand
    else:
        new = _touched(after) - (held if before is None else _touched(before))
    if before is not None:
        new |= {
            address
            for address in after.announced.keys() - before.announced.keys()
            if address in claims and claims[address].holder is None
        }
    return frozenset(Claim.of(claims[address]) for address in new if address in claims)


def _touched(desired: DesiredNode) -> set[Address]:
    """The addresses that rules of a node name."""
    found = {piece.egress_ip for piece in desired.slices}
    found.update(address for policy in desired.policies for address in policy.egress_ips)
    return found


class Trial:
    """Follows claims from their first apply. `check` says when to look for the API server, `checked` what was seen."""

    def __init__(self) -> None:
        self._on_trial: dict[Claim, float] = {}
        self._taken_back: dict[Claim, float] = {}
        self._withheld: dict[Claim, float] = {}
        self._tried_again: set[Claim] = set()
        self._let_be: set[Claim] = set()
        self._unanswered = 0
        self._last_check = -inf

    def applied(self, claims: Iterable[Claim], *, now: float, in_reach: bool) -> None:
        """An apply added these claims; `in_reach`: the API server answered just before."""
        if in_reach and not self._unanswered and not self._taken_back:
            self._on_trial.update(dict.fromkeys((c for c in claims if c not in self._let_be), now))

    def check(self) -> float | None:
        """When to call `checked` next; None while there is nothing to find out."""
        if self._taken_back or self._unanswered:
            return self._last_check + TRIAL_CHECK
        if self._on_trial:
            first = min(self._on_trial.values()) + TRIAL - CHECKS * TRIAL_CHECK
            return max(first, self._last_check + TRIAL_CHECK)
        retrial = min(self._withheld.values(), default=inf)
        return None if retrial == inf else max(retrial, self._last_check + TRIAL_CHECK)

    def checked(self, *, now: float, in_reach: bool) -> bool:
        """Take note of whether the API server answers; True when `withheld` is another one now."""
        self._last_check = now
        if in_reach:
            self._unanswered = 0
            self._on_trial = {claim: since for claim, since in self._on_trial.items() if now - since < TRIAL}
            return self._condemn(now) or self._try_again(now)
        self._unanswered += bool(self._on_trial)
        if self._taken_back:
            return self._give_up_suspicion(now)
        if self._unanswered < CHECKS or now - min(self._on_trial.values()) < TRIAL:
            return False
        self._taken_back = dict.fromkeys(self._on_trial, now)
        self._on_trial = {}
        self._unanswered = 0
        return True

    def _condemn(self, now: float) -> bool:
        """It is back since they were taken back: so it was one of them."""
        for claim in self._taken_back:
            self._withheld[claim] = inf if claim in self._tried_again else now + RETRIAL
        changed, self._taken_back = bool(self._taken_back), {}
        return changed

    def _give_up_suspicion(self, now: float) -> bool:
        if now - min(self._taken_back.values()) < TRIAL_PATIENCE:
            return False
        self._let_be |= self._taken_back.keys()
        self._taken_back = {}
        return True

    def _try_again(self, now: float) -> bool:
        """One at a time: those that were condemned together with the one that did it come free."""
        if self._on_trial:
            return False
        claim = next((claim for claim, due in self._withheld.items() if due <= now), None)
        if claim is None:
            return False
        del self._withheld[claim]
        self._tried_again.add(claim)
        return True

    @property
    def remembers(self) -> bool:
        """Whether there is anything that `remember` could forget."""
        return bool(self._on_trial or self._taken_back or self._withheld or self._tried_again or self._let_be)

    def remember(self, claims: Iterable[EgressIP]) -> None:
        """Forget whatever is not among these claims any more."""
        there = {Claim.of(claim) for claim in claims}
        self._on_trial = {claim: since for claim, since in self._on_trial.items() if claim in there}
        self._taken_back = {claim: since for claim, since in self._taken_back.items() if claim in there}
        self._withheld = {claim: due for claim, due in self._withheld.items() if claim in there}
        self._tried_again &= there
        self._let_be &= there
        if not self._on_trial:
            self._unanswered = 0

    @property
    def withheld(self) -> Mapping[Address, str]:
        """Egress IPs that must not be in the kernel -> why, in words that follow "egress IP ... is not used"."""
        reasons = {
            claim.address: "the API server went out of reach when it was first used here, and it was taken back"
            for claim in self._taken_back
        }
        for claim, due in self._withheld.items():
            often = "twice went" if due == inf else "went"
            reasons[claim.address] = (
                f"the API server {often} out of reach when it was used here, and came back when it was taken back"
            )
        return reasons
