"""nftables objects as values, and as the text that creates them.

Invariants: pure; a set's or chain's name stands for its type too (a type never changes under a name), so that two
values of one table differ only in elements, rules, and which objects there are. No chain has policy drop: a new
chain is hooked before its rules count, and would drop everything for that moment; chains end in a drop rule instead.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Set:
    """A set (elements map to None) or a map (elements map to a value)."""

    name: str
    spec: str
    """Type and flags, as nft writes them: `typeof ip daddr; flags interval`. Always `typeof`: nft up to 1.0.6, which a
    node may have beside the agent's own, crashes on listing maps and intervals that a newer one made by `type`."""
    elements: Mapping[str, str | None] = field(default_factory=dict)
    is_map: bool = False

    @property
    def kind(self) -> Literal["set", "map"]:
        return "map" if self.is_map else "set"

    @property
    def interval(self) -> bool:
        return "flags interval" in self.spec


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain; `hook` is None for one that is only jumped to."""

    name: str
    rules: tuple[str, ...] = ()
    hook: str | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """One table and all that is in it, in an order in which each object only refers to earlier kinds."""

    family: Literal["inet", "netdev"]
    name: str
    counters: tuple[str, ...] = ()
    sets: tuple[Set, ...] = ()
    chains: tuple[Chain, ...] = ()

    @property
    def address(self) -> str:
        """`family name`, as nft commands want it."""
        return f"{self.family} {self.name}"


@dataclass(frozen=True, slots=True)
class Ruleset:
    """All tables of one node."""

    tables: tuple[Table, ...] = ()


def elements_text(elements: Iterable[tuple[str, str | None]]) -> str:
    """`{ a : x, b : y }`; the braces nft wants around elements."""
    return "{ " + ", ".join(key if value is None else f"{key} : {value}" for key, value in elements) + " }"


def declare_set(table: Table, item: Set) -> str:
    return f"add {item.kind} {table.address} {item.name} {{ {item.spec}; }}"


def declare_chain(table: Table, chain: Chain) -> str:
    hook = f" {{ {chain.hook}; policy accept; }}" if chain.hook else ""
    return f"add chain {table.address} {chain.name}{hook}"


def add_elements(table: Table, item: Set, keys: Iterable[str]) -> Iterator[str]:
    """Commands that add the elements with these keys; a command holds a bounded number, as nft parses each whole."""
    yield from _batched("add", table, item, [(key, item.elements[key]) for key in keys])


def delete_elements(table: Table, item: Set, keys: Iterable[str]) -> Iterator[str]:
    """Commands that delete the elements with these keys."""
    yield from _batched("delete", table, item, [(key, None) for key in keys])


def _batched(verb: str, table: Table, item: Set, pairs: list[tuple[str, str | None]]) -> Iterator[str]:
    for start in range(0, len(pairs), 1000):
        yield f"{verb} element {table.address} {item.name} {elements_text(pairs[start : start + 1000])}"


def add_rules(table: Table, chain: Chain) -> Iterator[str]:
    for rule in chain.rules:
        yield f"add rule {table.address} {chain.name} {rule}"
