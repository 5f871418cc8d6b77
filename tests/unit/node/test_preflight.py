"""Facts about a node become one obstacle that names the remedy, or warnings, and never a false alarm."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_api.reasons import Reason
from sluice_api.timers import PREFLIGHT
from sluice_node.agent.preflight import Preflight
from sluice_node.core.marks import OURS
from sluice_node.core.preflight import ALL, Act, Facts, Finding, MarkUse, Trial, judge, linux, table
from sluice_node.kernel.errors import KernelError

OK = Facts(release="6.18.4", trials=(Trial("a", "b", "5.2"),))
CALICO = MarkUse("table ip filter chain cali-FORWARD", Act.TEST, 0x10000, 0x10000)
masks = st.integers(1, ALL - 1)
values = st.integers(0, ALL)


def obstacle(*uses: MarkUse) -> Finding | None:
    return judge(Facts(marks=uses)).obstacle


@given(masks, values, st.sampled_from(Act))
def test_a_mask_is_an_obstacle_exactly_when_it_has_a_bit_of_ours(mask: int, value: int, act: Act) -> None:
    found = obstacle(MarkUse("somewhere", act, mask, value))
    assert (found is not None) == (mask & OURS != 0 and mask != 0x2000)


@given(values)
def test_a_comparison_with_the_whole_mark_is_one_only_if_a_packet_of_ours_can_have_it(value: int) -> None:
    found = obstacle(MarkUse("somewhere", Act.TEST, ALL, value))
    assert (found is not None) == (value & ~OURS & ALL == 0 and value & ~0x3FFF != 0)


def test_who_writes_the_whole_mark_is_warned_of_and_no_obstacle() -> None:
    found = judge(Facts(marks=(MarkUse("table inet x chain y", Act.CHANGE, ALL),)))
    assert found.obstacle is None
    assert "table inet x chain y" in found.warnings[0]


def test_the_obstacle_names_rule_bits_and_remedy() -> None:
    found = obstacle(CALICO, CALICO)
    assert found is not None
    assert found.reason is Reason.MARKS_IN_USE
    for word in ("cali-FORWARD", "0x10000/0x10000", "0x1fff3fff", "another mask", "nodeSelector"):
        assert word in found.message
    assert found.message.count("cali-FORWARD") == 1


def test_a_missing_feature_comes_first_and_is_named_with_the_kernel_that_has_it() -> None:
    trial = Trial("egress hook", "the tunnel", "5.16", refused="No such file or directory")
    found = judge(Facts(release="5.14.0-427.el9.x86_64", trials=(trial,), marks=(CALICO,))).obstacle
    assert found is not None
    assert found.reason is Reason.UNSUPPORTED_KERNEL
    for word in ("5.14.0-427.el9.x86_64", "egress hook", "5.16", "No such file"):
        assert word in found.message


def test_an_old_version_alone_is_no_obstacle_for_distributions_bring_features_back() -> None:
    assert judge(Facts(release="5.14.0-427.el9.x86_64", trials=OK.trials)) == judge(OK)
    assert "copies the whole table" in judge(Facts(release="5.4.0")).warnings[0]


def test_what_may_be_in_the_way_is_a_warning_each() -> None:
    facts = Facts(drops=("chain FORWARD",), strict=("eth1",), rpfilter6=("chain pre",), unread=("iptables-legacy",))
    found = judge(facts)
    assert found.obstacle is None
    assert len(found.warnings) == 4
    assert judge(OK).warnings == ()


@pytest.mark.parametrize(
    ("release", "version"), [("6.18.4-fc", (6, 18)), ("5.14.0-427.el9", (5, 14)), ("5.15", (5, 15)), ("odd", None)]
)
def test_versions_are_read(release: str, version: tuple[int, int] | None) -> None:
    assert linux(release) == version


def test_the_table_for_people_has_everything() -> None:
    trial = Trial("egress hook", "the tunnel", "5.16", refused="no")
    text = table(Facts(release="5.15", trials=(*OK.trials, trial), marks=(CALICO,), drops=("chain FORWARD",)))
    for word in ("5.15", "missing", "egress hook", "conflict", "cali-FORWARD", "MarksInUse", "UnsupportedKernel"):
        assert word in text
    assert "findings: none" in table(OK)


class Node:
    """A node whose facts change, or cannot be read."""

    def __init__(self) -> None:
        self.facts = OK
        self.broken = False
        self.looks = 0
        self.changes: list[str] = []

    async def look(self) -> Facts:
        self.looks += 1
        if self.broken:
            raise KernelError("no socket")
        return self.facts


@pytest.mark.looptime
async def test_what_comes_later_is_noticed_within_a_minute_and_wakes_the_loop_once() -> None:
    node = Node()
    preflight = Preflight(node.look, node.changes.append)
    assert await preflight.obstacle() is None
    task = asyncio.create_task(preflight.run())
    await asyncio.sleep(3 * PREFLIGHT)
    assert node.changes == []
    node.facts = Facts(marks=(CALICO,))
    await asyncio.sleep(PREFLIGHT)
    assert len(node.changes) == 1
    assert await preflight.obstacle() is not None
    node.facts = OK
    await asyncio.sleep(3 * PREFLIGHT)
    assert len(node.changes) == 2
    assert await preflight.obstacle() is None
    task.cancel()


@pytest.mark.looptime
async def test_what_cannot_be_read_is_no_obstacle_and_takes_back_no_answer() -> None:
    node = Node()
    node.broken = True
    preflight = Preflight(node.look, node.changes.append)
    assert await preflight.obstacle() is None
    task = asyncio.create_task(preflight.run())
    node.broken, node.facts = False, Facts(marks=(CALICO,))
    await asyncio.sleep(PREFLIGHT + 1)
    node.broken = True
    await asyncio.sleep(3 * PREFLIGHT)
    assert await preflight.obstacle() is not None
    assert len(node.changes) == 1
    task.cancel()
