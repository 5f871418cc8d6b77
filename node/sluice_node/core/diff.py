"""From one ruleset to another in one transaction.

Invariants: pure; the text is one atomic transaction, so no packet sees half of it; a chain whose rules change is
flushed and filled in place; elements cost only what differs. Order matters inside the transaction: what refers is
added after what it refers to, and deleted before it.
"""

from collections.abc import Iterator

from sluice_node.core.tables import (
    Chain,
    Ruleset,
    Set,
    Table,
    add_elements,
    add_rules,
    declare_chain,
    declare_set,
    delete_elements,
)


def replacement(new: Ruleset) -> str:
    """The transaction that makes the tables from nothing, whatever is there under their names."""
    return "\n".join(line for table in new.tables for line in _replace(table)) + "\n"


def removal(old: Ruleset) -> str:
    """The transaction that takes the tables out, whether they are there or not."""
    return "".join(f"add table {table.address}\ndelete table {table.address}\n" for table in old.tables)


def transaction(old: Ruleset, new: Ruleset) -> str:
    """The transaction from `old`, which is what the kernel holds, to `new`; empty when they are equal."""
    before = {table.address: table for table in old.tables}
    after = {table.address for table in new.tables}
    lines = [f"delete table {address}" for address in before if address not in after]
    for table in new.tables:
        known = before.get(table.address)
        lines += _replace(table) if known is None else _change(known, table)
    return "\n".join(lines) + "\n" if lines else ""


def _replace(table: Table) -> list[str]:
    head = [f"add table {table.address}", f"delete table {table.address}", f"add table {table.address}"]
    return head + list(_change(Table(table.family, table.name), table))


def _change(old: Table, new: Table) -> Iterator[str]:
    old_sets, new_sets = {item.name: item for item in old.sets}, {item.name: item for item in new.sets}
    old_chains, new_chains = {chain.name: chain for chain in old.chains}, {chain.name: chain for chain in new.chains}
    gone = [chain for chain in old.chains if chain.name not in new_chains]
    changed = [chain for chain in new.chains if _rules(old_chains.get(chain.name)) != chain.rules]
    yield from (f"add counter {new.address} {name}" for name in new.counters if name not in old.counters)
    yield from (declare_set(new, item) for item in new.sets if item.name not in old_sets)
    yield from (declare_chain(new, chain) for chain in new.chains if chain.name not in old_chains)
    yield from (f"flush chain {new.address} {chain.name}" for chain in changed if _rules(old_chains.get(chain.name)))
    yield from (f"flush chain {new.address} {chain.name}" for chain in gone if chain.rules)
    for item in new.sets:
        yield from _elements(new, old_sets.get(item.name), item)
    for chain in changed:
        yield from add_rules(new, chain)
    yield from (f"delete {item.kind} {new.address} {item.name}" for item in old.sets if item.name not in new_sets)
    yield from (f"delete chain {new.address} {chain.name}" for chain in gone)
    yield from (f"delete counter {new.address} {name}" for name in old.counters if name not in new.counters)


def _rules(chain: Chain | None) -> tuple[str, ...]:
    return chain.rules if chain is not None else ()


def _elements(table: Table, old: Set | None, new: Set) -> Iterator[str]:
    before = old.elements if old is not None else {}
    if before is new.elements or before == new.elements:
        return
    if new.interval and before:
        # Intervals may overlap across the change (a /23 for a /24), which nft refuses one by one; such sets are small.
        yield f"flush {new.kind} {table.address} {new.name}"
        before = {}
    absent = object()
    leaves = [key for key, value in before.items() if new.elements.get(key, absent) != value]
    enters = [key for key, value in new.elements.items() if before.get(key, absent) != value]
    yield from delete_elements(table, new, leaves)
    yield from add_elements(table, new, enters)
