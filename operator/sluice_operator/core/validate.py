"""What the schema cannot check, in words a person can act on.

The CRDs refuse most mistakes when they are made. What passes them (a schema of an older release, a CIDR with host
bits set) ends here, as `Accepted=False`, rather than as a rule that means something else than its author thought.

Pure: no I/O, no clock.
"""

from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_network
from typing import Any

from sluice_api.addresses import Address, AddressError, PoolAddresses
from sluice_operator.core.selectors import contradictions


def policy_problems(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """Faults of an EgressPolicy's spec; each names the field, the value and the remedy."""
    return (
        *contradictions(spec.get("podSelector"), field="spec.podSelector"),
        *_address_problems(spec.get("addresses") or {}),
        *_destination_problems(spec),
    )


def pool_problems(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """Faults of an EgressPool's spec other than those of its addresses."""
    return (*contradictions(spec.get("namespaces"), field="spec.namespaces"), *_reservation_problems(spec))


def _reservation_problems(spec: Mapping[str, Any]) -> Iterator[str]:
    try:
        pool = PoolAddresses.parse(tuple(spec.get("addresses") or ()), tuple(spec.get("exclude") or ()))
    except AddressError:
        return  # that is what is said of the pool, and what it has is not known
    seen: set[Address] = set()
    for number, entry in enumerate(spec.get("reservations") or ()):
        field, value = f"spec.reservations[{number}].address", entry.get("address")
        try:
            address = ip_address(value)
        except ValueError:
            yield f"{field}: {value!r} is not an IP address; write one address of the pool"
            continue
        if address not in pool:
            yield f"{field}: {value} is not an address of the pool; add it to spec.addresses or remove the reservation"
        if address in seen:
            yield f"{field}: {value} is reserved twice; keep one reservation an address"
        seen.add(address)


def _address_problems(addresses: Mapping[str, Any]) -> Iterator[str]:
    seen: set[int] = set()
    families = {6 if family == "IPv6" else 4 for family in addresses.get("families") or ()}
    for value in addresses.get("requested") or ():
        try:
            address = ip_address(value)
        except ValueError:
            yield f"spec.addresses.requested: {value!r} is not an IP address; write one address of the pool"
            continue
        if address.version in seen:
            yield f"spec.addresses.requested: {value} is a second IPv{address.version} address; keep one a family"
        if families and address.version not in families:
            yield (
                f"spec.addresses.requested: {value} is IPv{address.version}, which spec.addresses.families leaves out; "
                f"add IPv{address.version} to families or remove the address"
            )
        seen.add(address.version)


def _destination_problems(spec: Mapping[str, Any]) -> Iterator[str]:
    for number, destination in enumerate(spec.get("destinations") or ()):
        where = f"spec.destinations[{number}]"
        for field in ("cidrs", "except"):
            for value in destination.get(field) or ():
                try:
                    ip_network(value)
                except ValueError as error:
                    yield f"{where}.{field}: {error}; write a network such as 203.0.113.0/24"
        for port in destination.get("ports") or ():
            end = port.get("endPort")
            if end is not None and end < port.get("port", 0):
                yield f"{where}.ports: endPort {end} is below port {port.get('port')}; swap them"
