"""EgressNode: what one node's agent has done and sees. Written by that agent alone."""

from typing import Annotated, Final

from pydantic import Field

from sluice_api.models.common import Condition, Model, conditions, counter
from sluice_api.names import OVERRIDDEN_BY_MAX
from sluice_api.reasons import ConditionType

MOST_TROUBLES: Final = 64
Name = Annotated[str, Field(max_length=253)]


class EgressNodeSpec(Model):
    """Nothing: an EgressNode only reports."""


class Tunnel(Model):
    """Where the node receives what other nodes tunnel to it."""

    address: str = Field(max_length=45, description="Address of the node that tunnel packets are sent to.")
    port: int = Field(ge=1, le=65535, description="UDP port.", json_schema_extra={"format": "int32"})
    mac: str = Field(pattern=r"^([0-9a-f]{2}:){5}[0-9a-f]{2}$", description="MAC address of its tunnel device.")


class NodePolicy(Model):
    """A policy that selects pods of the node."""

    namespace: Name = Field(description="Namespace of the policy.")
    name: Name = Field(description="Name of the policy.")
    generation: int = counter("The generation of the policy that is in the kernel.")
    pods: int = counter("Pods of the node that it selects.")
    overridden: int = counter("Pods that it would select, but another policy takes precedence.")
    overridden_by: list[Name] = Field(
        default_factory=list,
        alias="overriddenBy",
        max_length=OVERRIDDEN_BY_MAX,
        description="Policies of the same namespace that take precedence for those pods.",
    )


class GatewayHealth(Model):
    """A gateway as seen from the node."""

    node: Name = Field(description="The gateway's node.")
    alive: bool = Field(description="Whether the path through it works.")
    rtt_microseconds: int = counter("Time of the last probe to it and back.", alias="rttMicroseconds")


class Occupied(Model):
    """An address of some pool that is not free, as the node sees it."""

    address: str = Field(max_length=45, description="The address.")
    by: str = Field(
        max_length=128,
        description="What has it: pod, interface, network or broadcast address of a subnet, gateway of a route, host "
        "behind an interface, or neighbour (a machine on the link, with its MAC address).",
    )


class TroubledPolicy(Model):
    """The policy that something is wrong with."""

    namespace: Name = Field(description="Namespace of the policy.")
    name: Name = Field(description="Name of the policy.")


class NodeTrouble(Model):
    """Something that the node could not do, while it did everything else. Pool, policy and address say what it is
    about, as far as that is known."""

    pool: Name | None = Field(default=None, description="The pool concerned.")
    policy: TroubledPolicy | None = Field(
        default=None, description="The policy concerned: it is not in the kernel, and its pods are blocked."
    )
    address: Annotated[str, Field(max_length=45)] | None = Field(default=None, description="The egress IP concerned.")
    message: Annotated[str, Field(max_length=1024)] = Field(description="What is wrong, and what to do.")


class EgressNodeStatus(Model):
    """What the node's agent reports."""

    observed_generation: int = counter("The generation that this status speaks of.", alias="observedGeneration")
    addresses: list[Annotated[str, Field(max_length=45)]] = Field(
        default_factory=list, max_length=16, description="Addresses of the node."
    )
    pod_cidrs: list[Annotated[str, Field(max_length=49)]] = Field(
        default_factory=list, alias="podCIDRs", max_length=16, description="Ranges of the node's pods."
    )
    tunnel: Tunnel | None = Field(default=None, description="The node's end of the tunnel.")
    revision: int = counter("The latest revision of policies that is in the kernel.")
    gateway_for: list[Name] = Field(
        default_factory=list, alias="gatewayFor", max_length=1000, description="Pools that the node is a gateway of."
    )
    policies: list[NodePolicy] = Field(
        default_factory=list, max_length=5000, description="Policies that select pods of the node."
    )
    gateways: list[GatewayHealth] = Field(
        default_factory=list, max_length=5000, description="Gateways as seen from the node."
    )
    occupied: list[Occupied] = Field(
        default_factory=list,
        max_length=256,
        description="Addresses within the ranges of pools that the node sees in use by something else.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    surveyed: str = Field(
        default="",
        max_length=64,
        description="Digest of the names and generations of the pools that `occupied` speaks of. A new pool gives its "
        "first addresses when every node has looked, or after three seconds.",
    )
    troubles: list[NodeTrouble] = Field(
        default_factory=list,
        max_length=MOST_TROUBLES,
        description="What the node could not do, while it did everything else; tried again until it works.",
    )
    conditions: list[Condition] = conditions(ConditionType.PROGRAMMED, writer="the node's agent")
