"""What the tests of the operator on a real API server share: one server a module, emptied after each test."""

from collections.abc import Iterator

import pytest
from tests.cluster.operator_bed import OperatorBed, operator_bed


@pytest.fixture(scope="module")
def shared_bed() -> Iterator[OperatorBed]:
    """An API server and what runs operators against it; it starts with a module's first test that asks for it."""
    with operator_bed() as bed:
        yield bed


@pytest.fixture
def bed(shared_bed: OperatorBed) -> Iterator[OperatorBed]:
    """The same, with nothing of another test in it."""
    yield shared_bed
    shared_bed.clean()
