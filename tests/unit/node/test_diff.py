"""A transaction leads exactly from one ruleset to the next, in an order that the kernel accepts.

The judge is a small model of nf_tables: it refuses what the kernel would refuse (a reference to what is not there, the
deletion of what is in use, an element that is there already).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from sluice_node.core.diff import removal, replacement, transaction
from sluice_node.core.tables import Chain, Ruleset, Set, Table


@dataclass
class ModelTable:
    counters: set[str] = field(default_factory=set)
    sets: dict[str, dict[str, str | None]] = field(default_factory=dict)
    chains: dict[str, list[str]] = field(default_factory=dict)

    def references(self) -> Iterator[str]:
        texts = [rule for rules in self.chains.values() for rule in rules]
        texts += [value for elements in self.sets.values() for value in elements.values() if value]
        for text in texts:
            yield from re.findall(r"(?:goto|jump) (\w+)", text)
            yield from re.findall(r"@(\w+)", text)
            yield from re.findall(r"counter name (\w+)", text)


class Model:
    """What the kernel holds."""

    def __init__(self) -> None:
        self.tables: dict[str, ModelTable] = {}

    def run(self, text: str) -> None:
        for line in text.splitlines():
            verb, what, family, name, *rest = line.split(" ", 4)
            address = f"{family} {name}"
            if what == "table":
                if verb == "add":
                    self.tables.setdefault(address, ModelTable())
                else:
                    del self.tables[address]
            else:
                getattr(self, f"_{verb}_{what.replace('map', 'set')}")(self.tables[address], rest[0])
                for wanted in self.tables[address].references():
                    table = self.tables[address]
                    assert wanted in table.chains or wanted in table.sets or wanted in table.counters, (line, wanted)

    def _add_counter(self, table: ModelTable, rest: str) -> None:
        table.counters.add(rest)

    def _delete_counter(self, table: ModelTable, rest: str) -> None:
        table.counters.remove(rest)

    def _add_set(self, table: ModelTable, rest: str) -> None:
        table.sets.setdefault(rest.split(maxsplit=1)[0], {})

    def _delete_set(self, table: ModelTable, rest: str) -> None:
        del table.sets[rest]

    def _flush_set(self, table: ModelTable, rest: str) -> None:
        table.sets[rest].clear()

    def _add_chain(self, table: ModelTable, rest: str) -> None:
        table.chains.setdefault(rest.split(maxsplit=1)[0], [])

    def _delete_chain(self, table: ModelTable, rest: str) -> None:
        assert not table.chains.pop(rest), "a chain with rules is in use"

    def _flush_chain(self, table: ModelTable, rest: str) -> None:
        table.chains[rest].clear()

    def _add_rule(self, table: ModelTable, rest: str) -> None:
        chain, rule = rest.split(" ", 1)
        table.chains[chain].append(rule)

    def _add_element(self, table: ModelTable, rest: str) -> None:
        name, elements = rest.split(" ", 1)
        for key, value in _pairs(elements):
            assert key not in table.sets[name]
            table.sets[name][key] = value

    def _delete_element(self, table: ModelTable, rest: str) -> None:
        name, elements = rest.split(" ", 1)
        for key, _ in _pairs(elements):
            del table.sets[name][key]

    def state(self) -> object:
        return {
            address: (table.counters, table.sets, {name: tuple(rules) for name, rules in table.chains.items()})
            for address, table in self.tables.items()
        }


def _pairs(text: str) -> Iterator[tuple[str, str | None]]:
    for item in text.strip("{} ").split(", "):
        key, _, value = item.partition(" : ")
        yield key, value or None


def expected(rules: Ruleset) -> object:
    return {
        table.address: (
            set(table.counters),
            {item.name: dict(item.elements) for item in table.sets},
            {chain.name: chain.rules for chain in table.chains},
        )
        for table in rules.tables
    }


_KEYS = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"])


@st.composite
def tables(draw: st.DrawFn) -> Table:
    counters = draw(st.sets(st.sampled_from(["leak", "spoofed"])))
    leaves = draw(st.sets(st.sampled_from(["a", "b", "c"])))
    plain = draw(st.dictionaries(st.sampled_from(["s1", "s2"]), st.sets(_KEYS), max_size=2))
    wide = draw(st.sets(_KEYS))
    verdicts = st.sampled_from([f"goto {leaf}" for leaf in sorted(leaves)] or ["accept"])
    verdict_map = draw(st.dictionaries(_KEYS, verdicts))
    rules = ["accept", "drop", *(f"goto {leaf}" for leaf in leaves), *(f"ip saddr @{name} drop" for name in plain)]
    rules += [f"counter name {name} drop" for name in counters]
    lists = st.lists(st.sampled_from(rules), max_size=3).map(tuple)
    return Table(
        "inet",
        "sluice",
        counters=tuple(sorted(counters)),
        sets=(
            *(Set(name, "type ipv4_addr", dict.fromkeys(keys)) for name, keys in plain.items()),
            Set("wide", "type ipv4_addr; flags interval", dict.fromkeys(wide)),
            Set("pods", "type ipv4_addr : verdict", verdict_map, is_map=True),
        ),
        chains=(
            *(Chain(leaf, draw(st.sampled_from([(), ("accept",), ("drop", "accept")]))) for leaf in sorted(leaves)),
            Chain("base", draw(lists), hook="type filter hook forward priority 0"),
        ),
    )


@settings(max_examples=40)
@given(tables(), tables())
def test_a_transaction_makes_the_new_ruleset_of_the_old(old: Table, new: Table) -> None:
    model = Model()
    model.run(replacement(Ruleset((old,))))
    assert model.state() == expected(Ruleset((old,)))
    model.run(transaction(Ruleset((old,)), Ruleset((new,))))
    assert model.state() == expected(Ruleset((new,)))


@settings(max_examples=40)
@given(tables())
def test_no_change_is_no_transaction(table: Table) -> None:
    assert transaction(Ruleset((table,)), Ruleset((table,))) == ""


@settings(max_examples=40)
@given(tables(), tables())
def test_replacement_does_not_depend_on_what_was_there(old: Table, new: Table) -> None:
    model = Model()
    model.run(replacement(Ruleset((old,))))
    model.run(replacement(Ruleset((new,))))
    assert model.state() == expected(Ruleset((new,)))


def test_a_table_comes_and_goes() -> None:
    both = Ruleset((Table("inet", "sluice"), Table("netdev", "sluice", counters=("x",))))
    one = Ruleset(both.tables[:1])
    model = Model()
    model.run(replacement(one))
    model.run(transaction(one, both))
    assert model.state() == expected(both)
    model.run(transaction(both, one))
    assert model.state() == expected(one)
    model.run(removal(both))
    assert model.state() == {}


def test_one_more_pod_costs_one_element() -> None:
    pods = {f"10.244.{i // 250}.{i % 250}": "goto policy_5" for i in range(2000)}

    def with_pods(elements: dict[str, str]) -> Ruleset:
        return Ruleset(
            (
                Table(
                    "inet",
                    "sluice",
                    sets=(Set("pods4", "type ipv4_addr : verdict", elements, is_map=True),),
                    chains=(Chain("policy_5", ("accept",)),),
                ),
            )
        )

    change = transaction(with_pods(pods), with_pods(pods | {"10.245.0.1": "goto policy_5"}))
    assert change == "add element inet sluice pods4 { 10.245.0.1 : goto policy_5 }\n"


def test_large_sets_are_added_in_commands_of_bounded_length() -> None:
    elements = dict.fromkeys(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}" for i in range(2500))
    text = replacement(Ruleset((Table("inet", "sluice", sets=(Set("s", "type ipv4_addr", elements),)),)))
    assert [line.count(",") + 1 for line in text.splitlines() if line.startswith("add element")] == [1000, 1000, 500]
