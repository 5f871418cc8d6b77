"""Strict reading of documents that someone else wrote.

Every function takes the value and the path of its field, gives a typed value, or raises MalformedError naming the field
and what was expected. Invariants: pure; nothing is guessed, nothing is coerced.
"""

from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_network
from typing import Any, Final, TypeVar

from sluice_node.core.desired import Address, Network

Document = Mapping[str, Any]
_T = TypeVar("_T")
_SHOWN: Final = 60
"""Characters of a wrong value that an error shows."""


class MalformedError(ValueError):
    """A document is not what its kind promises; the text names the field."""

    def __init__(self, path: str, expected: str, value: object) -> None:
        shown = repr(value)
        super().__init__(f"{path}: expected {expected}, got {shown[:_SHOWN]}{'...' * (len(shown) > _SHOWN)}")


def mapping(value: object, path: str) -> Document:
    """An object; absent counts as empty."""
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise MalformedError(path, "an object", value)
    return value


def texts(value: object, path: str) -> tuple[tuple[str, str], ...]:
    """An object of texts, as (key, text) pairs in order of key; absent counts as empty."""
    return tuple(sorted((key, text(entry, f"{path}.{key}")) for key, entry in mapping(value, path).items()))


def text(value: object, path: str) -> str:
    """A text, which may be empty."""
    if not isinstance(value, str):
        raise MalformedError(path, "a text", value)
    return value


def name(value: object, path: str) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value:
        raise MalformedError(path, "a name", value)
    return value


def number(value: object, path: str, *, low: int, high: int) -> int:
    """An integer within low..high (a bool is none)."""
    if type(value) is not int or not low <= value <= high:
        raise MalformedError(path, f"a number within {low}..{high}", value)
    return value


def flag(value: object, path: str) -> bool:
    """True or false; absent counts as false."""
    if value is None:
        return False
    if not isinstance(value, bool):
        raise MalformedError(path, "true or false", value)
    return value


def items(value: object, path: str, read: Callable[[Any, str], _T]) -> tuple[_T, ...]:
    """A list, each entry read by `read`; absent counts as empty."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise MalformedError(path, "a list", value)
    return tuple(read(entry, f"{path}[{index}]") for index, entry in enumerate(value))


def address(value: object, path: str) -> Address:
    """An IP address without a zone."""
    if isinstance(value, str) and "%" not in value:
        try:
            return ip_address(value)
        except ValueError:
            pass
    raise MalformedError(path, "an IP address", value)


def network(value: object, path: str) -> Network:
    """A CIDR; host bits are masked, as the API server accepts them in pod CIDRs and destinations."""
    if isinstance(value, str) and "%" not in value:
        try:
            return ip_network(value, strict=False)
        except ValueError:
            pass
    raise MalformedError(path, "a CIDR", value)
