"""Label selectors: how they are shown, and those that can never select anything, whatever labels there will be.

Nothing selected at the moment is normal: the pods may come tomorrow. A selector that contradicts itself is a mistake.

Rules (apimachinery, LabelSelectorAsSelector): everything that a selector says must hold; matchLabels and In demand that
the label is there with one of their values, NotIn also holds when it is not there at all.
Invariants: total, like `project`, on documents that another client wrote. Pure: no I/O, no clock.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from sluice_operator.core.snapshot import Selector
from sluice_operator.core.words import names

LONGEST_SHOWN: Final = 200
"""Characters of a selector in a column."""


def shown(selector: Selector | None) -> str:
    """The selector of a pool's namespaces as kubectl writes one, "all" for one that selects everything."""
    if selector is None:
        return "all"
    texts = [f"{key}={value}" for key, value in selector.labels]
    for entry in selector.expressions:
        match entry.operator:
            case "Exists":
                texts.append(entry.key)
            case "DoesNotExist":
                texts.append(f"!{entry.key}")
            case _:
                texts.append(f"{entry.key} {entry.operator.lower()} ({','.join(entry.values)})")
    text = ",".join(texts) or "all"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


class _Demands:
    """What a selector demands of one label."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.allowed: frozenset[str] | None = None
        self.excluded: frozenset[str] = frozenset()
        self.present = False
        self.absent = False

    def add(self, text: str, operator: str, values: frozenset[str]) -> None:
        """Take in one entry."""
        self.texts.append(text)
        match operator:
            case "In":
                self.allowed = values if self.allowed is None else self.allowed & values
                self.present = True
            case "NotIn":
                self.excluded |= values
            case "Exists":
                self.present = True
            case "DoesNotExist":
                self.absent = True

    @property
    def contradictory(self) -> bool:
        """Whether no label fulfils all of them."""
        nothing_left = self.allowed is not None and not self.allowed - self.excluded
        return nothing_left or (self.present and self.absent)


def contradictions(selector: object, *, field: str) -> Iterator[str]:
    """For each label of which a selector demands what cannot be, a sentence; `field` is where the selector stands."""
    demands: dict[str, _Demands] = {}
    for key, text, operator, values in _entries(selector):
        demands.setdefault(key, _Demands()).add(text, operator, values)
    for key, found in demands.items():
        if found.contradictory:
            yield f"{field}: nothing can have {' and '.join(found.texts)}; correct what it says of label {key}"


def _entries(selector: object) -> Iterator[tuple[str, str, str, frozenset[str]]]:
    """Label, text, operator and values of each entry."""
    if not isinstance(selector, Mapping):
        return
    labels: Mapping[str, Any] = selector.get("matchLabels") or {}
    for key, value in labels.items():
        yield str(key), f"{key}={value}", "In", frozenset({str(value)})
    for entry in selector.get("matchExpressions") or ():
        key, operator = str(entry.get("key", "")), str(entry.get("operator", ""))
        values = [str(value) for value in entry.get("values") or ()]
        text = f"{key} {operator} ({names(values)})" if values else f"{key} {operator}"
        yield key, text, operator, frozenset(values)
