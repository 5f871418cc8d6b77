"""The connection that `helm test` opens: what it concludes from the agent's and the far host's answers."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

CHART = Path(__file__).parents[3] / "charts" / "sluice"
EGRESS, NODE = "198.51.100.17", "192.0.2.7"


@pytest.fixture(name="script")
def _script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("connection", CHART / "files" / "connection.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("SLUICE_NAMESPACE", "sluice-system")
    monkeypatch.setenv("SLUICE_TEST_POOL", "partners")
    monkeypatch.setenv("POD_IPS", "10.0.0.7,fd00::7")
    return module


class Cluster:
    """Plays the API server, the agent and the host outside."""

    def __init__(self, script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        self.policies: list[str] = []
        self.wanted = [EGRESS]
        self.left_as = EGRESS
        self.answer: set[str] | None = None
        monkeypatch.setattr(script, "api", self.api)
        monkeypatch.setattr(script, "addresses", lambda _: self.wanted)
        monkeypatch.setattr(script, "send", lambda *_: ("192.0.2.1", 9, None))
        monkeypatch.setattr(script, "ask", lambda *_: ("203.0.113.10", 80, self.answer))
        monkeypatch.setattr(script, "seen_by_the_node", self.seen)

    def api(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        if method == "POST":
            self.policies.append(body["metadata"]["name"])
        elif method == "DELETE":
            self.policies = []
        return {}

    def seen(self, *_: object) -> tuple[str, int]:
        assert self.policies == ["sluice-test"], "a policy selects the pod while it sends"
        return self.left_as, 2049


@pytest.fixture(name="cluster")
def _cluster(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(script, monkeypatch)


def test_it_shows_the_address_and_takes_its_policy_away(
    script: ModuleType, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main() == 0
    assert f"10.0.0.7 -> 192.0.2.1 port 9 left as {EGRESS} port 2049" in capsys.readouterr().out
    assert not cluster.policies


def test_another_address_than_the_policys_is_a_failure(
    script: ModuleType, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.left_as = NODE
    assert script.main() == 1
    assert f"{NODE} is no address of the policy" in capsys.readouterr().out
    assert not cluster.policies


@pytest.mark.parametrize(("answer", "status"), [({EGRESS}, 0), ({NODE}, 1), (set(), 1)])
def test_the_far_hosts_word_is_compared(
    script: ModuleType, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, answer: set[str], status: int
) -> None:
    monkeypatch.setenv("SLUICE_TEST_URL", "http://203.0.113.10/")
    cluster.answer = answer
    assert script.main() == status
    assert not cluster.policies


def test_a_family_that_the_pod_lacks_is_said(
    script: ModuleType, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POD_IPS", "fd00::7")
    assert script.main() == 1
    assert "of no family of the policy's" in capsys.readouterr().out
    assert not cluster.policies


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("198.51.100.17\n", {"198.51.100.17"}),
        ('{"address": "2001:DB8:100:0::1", "port": 7}', {"2001:db8:100::1"}),
        ("you came from 198.51.100.17.", {"198.51.100.17"}),
        ("deadbeef 1.2.3 ::::", set()),
    ],
)
def test_addresses_are_found_in_any_answer(script: ModuleType, text: str, found: set[str]) -> None:
    assert set(script.mentioned(text)) == found
