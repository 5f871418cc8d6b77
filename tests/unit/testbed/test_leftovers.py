"""What a run left behind is told, and what belongs to a cluster beside it is not."""

import os
import subprocess
import sys

from testbed import leftovers

BEFORE = frozenset({"mount /", "namespace sluice.sluice.n1", "link lo"})
OURS = [
    "cgroup /sys/fs/cgroup/pids/sluice-testbed/test",
    "link sl-test",
    "loop device of /root/.local/state/sluice/testbed/clusters/test/nodes/n1/disk",
    "mount /root/.cache/sluice/images/storage/overlay/1/merged",
    "mount /run/netns/sluice.test.n1",
    "namespace sl4711-n1",
    "namespace sluice.test.n1",
]


def test_whatever_is_new_is_told() -> None:
    assert leftovers.left(BEFORE, BEFORE | set(OURS), others=["demo"]) == OURS


def test_nothing_is_told_of_what_was_there_before_or_has_gone() -> None:
    assert leftovers.left(BEFORE | set(OURS), OURS, others=[]) == []


def test_a_cluster_that_somebody_else_brought_up_meanwhile_is_not_ours_to_tell() -> None:
    theirs = {
        "cgroup /sys/fs/cgroup/pids/sluice-testbed/demo",
        "link sl-demo",
        "mount /root/.local/state/sluice/testbed/clusters/demo/nodes/n1/disk",
        "mount /run/netns/sluice.demo.n1",
    }
    assert leftovers.left(BEFORE, BEFORE | theirs, others=["demo"]) == []
    assert len(leftovers.left(BEFORE, BEFORE | theirs, others=["other"])) == len(theirs)


def test_a_process_of_the_run_is_found_wherever_it_hangs() -> None:
    environment = {**os.environ, leftovers.MARK: "4711"}
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        (found,) = leftovers.processes("4711")
        assert str(child.pid) in found
        assert leftovers.processes("4712") == []
        child.kill()
    assert leftovers.processes("4711") == []
