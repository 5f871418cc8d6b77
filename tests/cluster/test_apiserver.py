"""The API server of the tests hangs, dies and comes back on demand, and leaves nothing behind."""

import os
import time
from pathlib import Path

import pytest

from testbed.apiserver import ApiServer

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]
NAMESPACES = "/api/v1/namespaces"


def test_what_was_stored_outlives_the_api_server_and_nothing_outlives_the_test() -> None:
    with ApiServer() as api:
        folder, url = api.kubeconfig.parent, api.url
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kept"}}
        assert api.request("POST", NAMESPACES, body).status == 201
        api.stop()
        with pytest.raises(OSError, match="refused"):
            api.request("GET", f"{NAMESPACES}/kept")
        api.start()
        assert api.url == url
        assert api.request("GET", f"{NAMESPACES}/kept").status == 200
        assert api.kubectl("get", "namespace", "kept").returncode == 0
        assert list(api.stored("namespaces/kept")) == ["/registry/namespaces/kept"]
        pids = _children_with(str(folder))
        assert len(pids) == 2
    assert not folder.exists()
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_a_paused_api_server_answers_when_it_goes_on() -> None:
    with ApiServer() as api:
        api.pause()
        started = time.monotonic()
        listed = api.kubectl("get", "namespaces", "--request-timeout=2s")
        assert listed.returncode != 0
        assert time.monotonic() - started >= 2
        api.resume()
        assert api.request("GET", NAMESPACES).status == 200


def _children_with(argument: str) -> list[int]:
    """Pids of this process's children that have a text in their command line."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            command = (folder / "cmdline").read_text()
        except OSError:
            continue
        if parent == str(os.getpid()) and argument in command:
            found.append(int(folder.name))
    return found
